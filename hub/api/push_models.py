"""What the calls about devices and browsers take and answer, as structs (see `hub.api.models`)."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from hub.api.models import Moment
from hub.model.devices import Platform


class DeviceInput(Struct, frozen=True, forbid_unknown_fields=True):
    """A device as its app registers it; `token` is FCM's registration token."""

    token: Annotated[str, Meta(min_length=8, max_length=4096)]
    platform: Platform


class DeviceRemoval(Struct, frozen=True, forbid_unknown_fields=True):
    """Which device to forget: exactly one of both."""

    token: Annotated[str, Meta(max_length=4096)] | None = None
    id: Annotated[str, Meta(max_length=128)] | None = None


class DeviceShown(Struct, frozen=True):
    """A device, without its token. `used_at`: when it last registered."""

    id: str
    platform: str
    created_at: Moment | None
    used_at: Moment | None


class DeviceList(Struct, frozen=True):
    """A user's devices, the last used first."""

    devices: list[DeviceShown]
    next: str | None


class PushKey(Struct, frozen=True):
    """The public half of the hub's key: an uncompressed P-256 point in base64url."""

    public_key: str


class SubscriptionShown(Struct, frozen=True):
    """A browser that gets push. `service`: the host of its push service; the endpoint is the browser's secret."""

    id: str
    service: str
    created_at: Moment | None
    used_at: Moment | None


class PushSubscriptions(Struct, frozen=True):
    """A user's browsers, the one used last first."""

    push_subscriptions: list[SubscriptionShown]
    next: str | None


class RegisteredShown(Struct, frozen=True):
    """The browser is registered. `renewal` replaces its subscription later without its user: keep it in the browser."""

    id: str
    renewal: str


class ReceiptInput(Struct, frozen=True):
    """What became of a message."""

    event: Literal["shown", "clicked", "closed"]
