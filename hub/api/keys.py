"""API keys: made, listed, rotated, revoked. A secret is shown once, in the answer that made it."""

from hub.api.models import KeyInput, KeyList, KeyShown, Rotation
from hub.api.problems import invalid
from hub.api.routing import Call, Reply, Route
from hub.model.notifications import rfc3339
from hub.model.schedule import parse_moment
from hub.ports import ApiKey


def shown(key: ApiKey, secret: str | None = None) -> KeyShown:
    """A key as the API shows it."""
    return KeyShown(
        key.id,
        key.name,
        sorted(key.scopes),
        rfc3339(key.created_at_us),
        rfc3339(key.revoked_at_us),
        rfc3339(key.expires_at_us),
        secret,
    )


async def list_keys(call: Call) -> Reply:
    """GET /v1/keys."""
    return Reply(KeyList([shown(key) for key in await call.parts.keys.list()], None))


async def create(call: Call) -> Reply:
    """POST /v1/keys."""
    wanted = call.body_as(KeyInput)
    try:
        expires_at_us = parse_moment(wanted.expires_at) if wanted.expires_at is not None else None
    except ValueError as error:
        raise invalid("/expires_at", str(error)) from None
    key, secret = await call.parts.keys.create(wanted.name, wanted.scopes, expires_at_us)
    return Reply(shown(key, secret), 201)


async def rotate(call: Call) -> Reply:
    """POST /v1/keys/{key_id}/rotate."""
    wanted = call.body_as(Rotation)
    key, secret = await call.parts.keys.rotate(call.path["key_id"], wanted.overlap_seconds)
    return Reply(shown(key, secret), 201)


async def revoke(call: Call) -> Reply:
    """DELETE /v1/keys/{key_id}."""
    await call.parts.keys.revoke(call.path["key_id"])
    return Reply(status=204)


ROUTES = [
    Route("GET", "/v1/keys", list_keys, ("admin",), "List API keys, never their secrets", KeyList),
    Route(
        "POST",
        "/v1/keys",
        create,
        ("admin",),
        "Make an API key; its secret is in this answer only",
        KeyShown,
        201,
        body=KeyInput,
        body_kind="json",
    ),
    Route(
        "POST",
        "/v1/keys/{key_id}/rotate",
        rotate,
        ("admin",),
        "Make a key's successor; both work for the overlap",
        KeyShown,
        201,
        body=Rotation,
        body_kind="json",
        codes=("conflict",),
    ),
    Route(
        "DELETE",
        "/v1/keys/{key_id}",
        revoke,
        ("admin",),
        "Revoke an API key now",
        None,
        204,
        codes=("conflict",),
    ),
]
