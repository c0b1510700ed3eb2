"""Clarion, a self-hosted real-time notification hub: everything but the pages (`web`) and the senders (`workers`)."""

import atexit
import gc

__version__ = "0.1.0"

# msgspec 0.22 can crash when the interpreter's last collection takes its types apart in an unlucky order
# (msgspec issue 717). What is frozen is left to the operating system.
atexit.register(gc.freeze)
