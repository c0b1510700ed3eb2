"""Users, for backends: profiles, batches, export, erasure, revocation."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import asdict

from hub.api.body import REQUEST_LIMIT_BYTES
from hub.api.inbox import page_of
from hub.api.models import InboxPage, Page, ShownProfile, UserBatch, Users, UserTopics
from hub.api.paging import after_of, next_of
from hub.api.routing import Call, Reply, Route, refuse_faults
from hub.decoding import decode_json
from hub.errors import FieldError, Refused
from hub.inbox import InboxParameters
from hub.intake import first_lines
from hub.model.users import Profile
from hub.people import MergeItem, ProfileInput, check_merge

BATCH_LIMIT: Final = 1000
_item = msgspec.json.Decoder(MergeItem)
_array = msgspec.json.Decoder(list[msgspec.Raw])


def shown(profile: Profile) -> ShownProfile:
    """A profile as the API shows it: nulls included."""
    return ShownProfile(**asdict(profile))


async def list_users(call: Call) -> Reply:
    """GET /v1/users."""
    page = call.query_as(Page)
    rows = await call.parts.people.list(after_of(page.cursor), page.limit + 1)
    listed = rows[: page.limit]
    following = next_of(rows, page.limit, listed[-1].id if listed else "")
    return Reply(Users([shown(row) for row in listed], following))


async def get(call: Call) -> Reply:
    """GET /v1/users/{id}."""
    return Reply(shown(await call.parts.people.profile(call.path["id"])))


async def put(call: Call) -> Reply:
    """PUT /v1/users/{id}."""
    profile, created = await call.parts.people.put_profile(call.path["id"], call.body_as(ProfileInput))
    return Reply(shown(profile), 201 if created else 200)


async def patch(call: Call) -> Reply:
    """PATCH /v1/users/{id}."""
    patched = await call.parts.people.patch_profile(call.path["id"], call.body_as(dict))
    return Reply(shown(patched))


async def delete(call: Call) -> Reply:
    """DELETE /v1/users/{id}."""
    await call.parts.people.erase(call.path["id"])
    return Reply(status=204)


async def batch(call: Call) -> Reply:
    """POST /v1/users/batch: one merge a line."""
    lines = _lines(call.raw)
    if not lines:
        raise Refused(422, "empty_batch", "The batch has no users.", [FieldError("", "empty", "No users.")])
    if len(lines) > BATCH_LIMIT:
        raise Refused(413, "batch_too_large", f"The batch has more than {BATCH_LIMIT} users.")
    results: list[dict[str, Any]] = []
    good: list[MergeItem] = []
    for line in lines:
        try:
            item = decode_json(_item, line)
            refuse_faults(bytes(line))
            check_merge(item)
        except Refused as refused:
            results.append({"error": error_of(refused)})
        else:
            good.append(item)
            results.append({"id": item.id, "status": "merged"})
    if good:
        await _merge(call, good, results)
    merged = sum("id" in result for result in results)
    return Reply(UserBatch(results, merged, len(results) - merged), 200 if merged else 422)


def _lines(raw: bytes) -> Sequence[bytes | msgspec.Raw]:
    """One item a line; an array is understood too."""
    if raw.lstrip()[:1] == b"[":
        return decode_json(_array, raw)
    return first_lines(raw, BATCH_LIMIT + 1)


async def _merge(call: Call, items: list[MergeItem], results: list[dict[str, Any]]) -> None:
    """Store them together; when the store refuses one (too many topics), one by one, so that it blocks no other."""
    try:
        await call.parts.people.merge(items)
        return
    except Refused:
        pass
    waiting = iter(items)
    for index, result in enumerate(results):
        if "error" in result:
            continue
        try:
            await call.parts.people.merge([next(waiting)])
        except Refused as refused:
            results[index] = {"error": error_of(refused)}


def error_of(refused: Refused) -> dict[str, Any]:
    """An item's error, in the words of a problem document."""
    return {
        "code": refused.code,
        "detail": refused.detail,
        "errors": [{"pointer": e.pointer, "code": e.code, "detail": e.detail} for e in refused.errors],
    }


async def export(call: Call) -> Reply:
    """GET /v1/users/{id}/export."""
    return Reply(await call.parts.people.export(call.path["id"]))


async def topics(call: Call) -> Reply:
    """GET /v1/users/{id}/topics."""
    return Reply(UserTopics(list(await call.parts.people.topics(call.path["id"])), None))


async def notifications(call: Call) -> Reply:
    """GET /v1/users/{id}/notifications."""
    return await page_of(call, call.path["id"])


async def revoke_tokens(call: Call) -> Reply:
    """POST /v1/users/{id}/revoke-tokens."""
    await call.parts.people.revoke_tokens(call.path["id"])
    return Reply(status=204)


ROUTES = [
    Route(
        "GET", "/v1/users", list_users, ("users",), "List users", Users, query=Page, codes=("invalid_cursor",)
    ),
    Route(
        "POST",
        "/v1/users/batch",
        batch,
        ("users",),
        "Merge up to 1,000 users, one JSON object a line, with optional preferences and topics",
        UserBatch,
        body_kind="ndjson",
        body_limit=REQUEST_LIMIT_BYTES,
        codes=("empty_batch", "batch_too_large", "too_many_topics"),
        other_statuses=(422,),
    ),
    Route("GET", "/v1/users/{id}", get, ("users",), "Read a profile", ShownProfile),
    Route(
        "PUT",
        "/v1/users/{id}",
        put,
        ("users",),
        "Create or replace a profile",
        ShownProfile,
        body=ProfileInput,
        body_kind="json",
        other_statuses=(201,),
    ),
    Route(
        "PATCH",
        "/v1/users/{id}",
        patch,
        ("users",),
        "Change some of a profile",
        ShownProfile,
        body=dict,
        body_schema=ProfileInput,
        body_kind="merge",
    ),
    Route("DELETE", "/v1/users/{id}", delete, ("users",), "Erase a user", None, 204),
    Route("GET", "/v1/users/{id}/export", export, ("users",), "All that is kept about a user", dict),
    Route("GET", "/v1/users/{id}/topics", topics, ("users",), "The topics that a user follows", UserTopics),
    Route(
        "GET",
        "/v1/users/{id}/notifications",
        notifications,
        ("users",),
        "A user's inbox",
        InboxPage,
        query=InboxParameters,
        codes=("invalid_cursor",),
    ),
    Route(
        "POST",
        "/v1/users/{id}/revoke-tokens",
        revoke_tokens,
        ("users",),
        "Close a user's connections and refuse the tokens issued before",
        None,
        204,
    ),
]
