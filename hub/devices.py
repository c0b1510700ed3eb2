"""Devices of users: registered by their apps, listed without their tokens, removed. A device belongs to who used it last.

An app registers its token at each start: repeating that keeps the device from being the one that goes when a user has
too many.
"""

from hub.errors import FieldError, Refused
from hub.model.devices import DEVICES_LIMIT, Device, Platform, device_id, is_device_token
from hub.ports import Clock
from hub.ports.devices import DeviceStore


class Devices:
    """The use cases about a user's devices."""

    def __init__(self, store: DeviceStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def register(self, user_id: str, token: str, platform: Platform) -> Device:
        """Keep a device; it is this user's alone from now on. Raises `Refused(422)`."""
        if not is_device_token(token):
            detail = "A registration token is 8 to 4096 printable characters without spaces."
            raise Refused(422, "invalid_value", detail, [FieldError("/token", "invalid_value", detail)])
        now_us = self._clock.now_us()
        device = Device(device_id(token), user_id, token, platform, now_us, now_us)
        return await self._store.save_device(device, DEVICES_LIMIT)

    async def list(self, user_id: str) -> list[Device]:
        """A user's devices, the last used first."""
        return (await self._store.devices_of([user_id])).get(user_id, [])

    async def remove(self, user_id: str, *, token: str | None = None, id: str | None = None) -> None:  # noqa: A002
        """Forget a device, named in one way. One that is not there, or not theirs, is no mistake. Raises `Refused(422)`."""
        if (token is None) == (id is None):
            detail = "Name the device by its token or by its id, not both."
            raise Refused(422, "invalid_request", detail, [FieldError("", "invalid_request", detail)])
        await self._store.remove_device(user_id, device_id(token) if token is not None else id or "")
