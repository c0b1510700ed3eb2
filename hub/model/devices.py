"""Mobile devices that take push: what is known of one, and how it is named without its token. Pure."""

import re
from hashlib import blake2b
from typing import Final, Literal

from msgspec import Struct

Platform = Literal["android", "ios", "web"]

DEVICES_LIMIT: Final = 20
"""For one user; the one that was used longest ago goes."""

_TOKEN: Final = re.compile(r"[!-~]{8,4096}")


class Device(Struct, frozen=True):
    """A device of a user. `token`: what FCM knows it by, a secret. `used_at_us`: when it last registered."""

    id: str
    user_id: str
    token: str
    platform: str
    created_at_us: int
    used_at_us: int

    def __repr__(self) -> str:
        """Without the token, which only the device, FCM and the hub know."""
        return f"Device({self.id!r}, {self.user_id!r}, {self.platform!r})"


def is_device_token(text: str) -> bool:
    """Whether a text can be a registration token: 8 to 4096 printable ASCII characters without a space."""
    return _TOKEN.fullmatch(text) is not None


def device_id(token: str) -> str:
    """The name of a device: the same for the same token, and nothing leads from it to the token."""
    return f"dev_{blake2b(token.encode(), digest_size=16).hexdigest()}"
