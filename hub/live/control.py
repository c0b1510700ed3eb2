"""Control messages: what one process tells all hub nodes over the bus.

They are hints, and one may be lost: a node that lost its bus trusts no user's row afterwards. What cannot be read, or is
of a kind that nodes do not know, is somebody else's.
"""

import msgspec
from msgspec import Struct


class Control(Struct):
    """A user changed (`user`), tokens were revoked (`revoked`), or a page was shown or hidden (`presence`)."""

    kind: str
    id: str = ""  # the user's
    before_us: int = 0
    connection: str = ""
    visible: bool = True


_decoder = msgspec.json.Decoder(Control)


def parse_control(body: bytes) -> Control | None:
    """The message; None for what is none."""
    try:
        return _decoder.decode(body)
    except msgspec.MsgspecError:
        return None
