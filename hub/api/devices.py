"""A user's devices for mobile push. Tokens come in and never go out again."""

from hub.api.push_models import DeviceInput, DeviceList, DeviceRemoval, DeviceShown
from hub.api.routing import Call, Reply, Route
from hub.devices import Devices
from hub.model.devices import Device
from hub.model.notifications import rfc3339


def _devices(call: Call) -> Devices:
    return Devices(call.parts.store, call.parts.clock)


def shown(device: Device) -> DeviceShown:
    """A device as the API shows it."""
    return DeviceShown(device.id, device.platform, rfc3339(device.created_at_us), rfc3339(device.used_at_us))


async def register(call: Call) -> Reply:
    """POST /v1/me/devices."""
    given = call.body_as(DeviceInput)
    return Reply(shown(await _devices(call).register(call.user_id, given.token, given.platform)))


async def list_devices(call: Call) -> Reply:
    """GET /v1/me/devices."""
    return Reply(DeviceList([shown(one) for one in await _devices(call).list(call.user_id)], None))


async def remove(call: Call) -> Reply:
    """DELETE /v1/me/devices."""
    named = call.body_as(DeviceRemoval)
    await _devices(call).remove(call.user_id, token=named.token, id=named.id)
    return Reply(status=204)


ROUTES = [
    Route(
        "POST",
        "/v1/me/devices",
        register,
        ("user",),
        "Register this device for mobile push; repeat it at each start of the app",
        DeviceShown,
        body=DeviceInput,
        body_kind="json",
        codes=("invalid_value",),
    ),
    Route("GET", "/v1/me/devices", list_devices, ("user",), "My devices, the last used first", DeviceList),
    Route(
        "DELETE",
        "/v1/me/devices",
        remove,
        ("user",),
        "Forget a device, by its token or its id",
        None,
        204,
        body=DeviceRemoval,
        body_kind="json",
        codes=("invalid_request",),
    ),
]
