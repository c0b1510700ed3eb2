"""What connected clients may call over WebSocket: the same use cases and shapes as over HTTP."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from hub.errors import FieldError, Refused
from hub.inbox import Inbox, InboxParameters, MarkRequest
from hub.live.calls import Method
from hub.live.seam import Identity
from hub.people import People

T = TypeVar("T", bound=Struct)


class _Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """The data of a method that takes none."""


def methods(inbox: Inbox, people: People) -> Mapping[str, Method]:
    """The table of methods; `presence.set` is the node's own."""

    async def listed(identity: Identity, data: Any) -> Any:
        return await inbox.page_of(identity.user_id, _convert(data, InboxParameters))

    async def mark(identity: Identity, data: Any) -> Any:
        return await inbox.mark(identity.user_id, _convert(data, MarkRequest))

    async def unread_count(identity: Identity, data: Any) -> Any:
        _convert(data, _Nothing)
        return (await inbox.counts(identity.user_id)).json()

    async def get_preferences(identity: Identity, data: Any) -> Any:
        _convert(data, _Nothing)
        shown, _ = await people.preferences(identity.user_id)
        return shown

    async def patch_preferences(identity: Identity, data: Any) -> Any:
        shown, _ = await people.patch_preferences(identity.user_id, data, None)
        return shown

    return {
        "notifications.list": listed,
        "notifications.mark": mark,
        "unread_count": unread_count,
        "preferences.get": get_preferences,
        "preferences.patch": patch_preferences,
    }


def _convert(data: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert({} if data is None else data, kind)
    except msgspec.ValidationError as error:
        detail = f"{error}."
        raise Refused(422, "invalid_request", detail, [FieldError("", "invalid_value", detail)]) from None
