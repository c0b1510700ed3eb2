"""Devices: where mobile push goes. A token belongs to whoever used it last."""

from collections.abc import Sequence
from typing import Protocol

from hub.model.devices import Device


class DeviceStore(Protocol):
    """Devices of users, by their tokens."""

    async def save_device(self, device: Device, limit: int) -> Device:
        """Keep a device (creating its user); returns it as it is kept. Repeating it renews `used_at_us` and its platform.

        One that another user had is this user's from now on, as if it were new. Beyond `limit` devices of the user the one
        that was used longest ago goes.
        """
        ...

    async def devices_of(self, user_ids: Sequence[str]) -> dict[str, list[Device]]:
        """The devices of those users that have any, the last used first."""
        ...

    async def remove_device(self, user_id: str, device_id: str) -> bool:
        """Forget a device of this user. False: it is none of theirs."""
        ...

    async def remove_targets(self, ids: Sequence[str]) -> int:
        """Forget devices whose tokens are dead, whoever has them; returns how many there were."""
        ...
