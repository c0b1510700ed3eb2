"""Clarion's core: events in, notifications out, live to browsers.

Everything here may be imported by `web` and `workers`; nothing here imports them.
"""

__version__ = "0.1.0"
