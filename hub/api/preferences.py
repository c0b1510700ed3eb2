"""Preferences: a user's own, and anybody's for backends. One set of rules for both."""

import msgspec

from hub.api.conditions import etag_of, if_match_of
from hub.api.models import PreferencesBody
from hub.api.routing import Call, Reply, Route
from hub.people import ShownPreferences


def _subject(call: Call) -> str:
    return call.path["id"] if call.caller.key_id else call.user_id


def _reply(shown: tuple[ShownPreferences, int]) -> Reply:
    return Reply(shown[0], headers=(etag_of(shown[1]),))


async def get(call: Call) -> Reply:
    """GET …/preferences."""
    return _reply(await call.parts.people.preferences(_subject(call)))


async def put(call: Call) -> Reply:
    """PUT …/preferences."""
    if_match = if_match_of(call.headers.get(b"if-match"))
    document = msgspec.json.decode(call.raw)
    return _reply(await call.parts.people.put_preferences(_subject(call), document, if_match))


async def patch(call: Call) -> Reply:
    """PATCH …/preferences: RFC 7396."""
    if_match = if_match_of(call.headers.get(b"if-match"))
    document = call.body_as(dict)
    return _reply(await call.parts.people.patch_preferences(_subject(call), document, if_match))


ROUTES: list[Route] = []
for _path, _access, _whose in (
    ("/v1/me/preferences", ("user",), "my"),
    ("/v1/users/{id}/preferences", ("users",), "a user's"),
):
    ROUTES += [
        Route("GET", _path, get, _access, f"Read {_whose} preferences", ShownPreferences),  # type: ignore[arg-type]
        Route(
            "PUT",
            _path,
            put,
            _access,  # type: ignore[arg-type]
            f"Replace {_whose} preferences",
            ShownPreferences,
            body=PreferencesBody,
            body_kind="json",
            codes=("stale_version", "invalid_preferences"),
            headers=("If-Match",),
        ),
        Route(
            "PATCH",
            _path,
            patch,
            _access,  # type: ignore[arg-type]
            f"Change some of {_whose} preferences",
            ShownPreferences,
            body=dict,
            body_schema=PreferencesBody,
            body_kind="merge",
            codes=("stale_version", "invalid_preferences"),
            headers=("If-Match",),
        ),
    ]
