"""Conditional changes: a version that a caller read must still be the one that is stored (RFC 9110 §13.1.1)."""

from hub.errors import Refused

IfMatch = frozenset[int] | None
"""The versions that an If-Match header names; None: it is not there, or any will do."""


def expected_version(if_match: IfMatch, current: int) -> int | None:
    """The version that a conditional save must still find; None: unconditional. Raises `Refused(412)`."""
    if if_match is None:
        return None
    if current not in if_match:
        raise Refused(
            412, "stale_version", f"The current version is {current}; read it again and repeat the change."
        )
    return current
