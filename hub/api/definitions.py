"""Types and categories: what backends define once. Each version carries an ETag; a stale If-Match gets 412."""

from typing import Any

from msgspec import Struct

from hub.api.conditions import etag_of, if_match_of
from hub.api.models import (
    Categories,
    CategoryBody,
    CategoryShown,
    Page,
    Preview,
    PreviewRequest,
    TypeBody,
    Types,
    TypeShown,
    Versions,
    VersionShown,
)
from hub.api.paging import page_of_names
from hub.api.problems import invalid
from hub.api.routing import Call, Reply, Route
from hub.catalog import check_type
from hub.model.contents import NOBODY, render_content
from hub.model.events import Event
from hub.model.notifications import rfc3339
from hub.model.preferences import pick_locale
from hub.model.schemas import data_errors
from hub.model.types import CategoryDefinition, TypeDefinition, TypeVersion

TYPE_LIMIT_BYTES = 2 * 1024 * 1024


class PutQuery(Struct, frozen=True):
    """With `dry_run` everything is checked and nothing stored."""

    dry_run: bool = False


def _shown(known: TypeVersion) -> TypeShown:
    return TypeShown(**fields_of(known.definition, TypeDefinition), name=known.name, version=known.version)


def _shown_category(name: str, version: int, definition: CategoryDefinition) -> CategoryShown:
    return CategoryShown(**fields_of(definition, CategoryDefinition), name=name, version=version)


def fields_of(value: Struct, kind: type[Struct]) -> dict[str, Any]:
    """The fields of `kind` that a struct of it, or of what was made from it, holds."""
    return {name: getattr(value, name) for name in kind.__struct_fields__}


def _refuse_other_name(given: str | None, name: str) -> None:
    if given is not None and given != name:
        raise invalid("/name", f"The address names {name!r}.")


async def list_types(call: Call) -> Reply:
    """GET /v1/types."""
    page = call.query_as(Page)
    known = (await call.parts.definitions.current()).types
    names, following = page_of_names(list(known), page.limit, page.cursor)
    return Reply(Types([_shown(known[name]) for name in names], following))


async def get_type(call: Call) -> Reply:
    """GET /v1/types/{type}."""
    known = await call.parts.definitions.known_type(call.path["type"])
    return Reply(_shown(known), headers=(etag_of(known.version),))


async def put_type(call: Call) -> Reply:
    """PUT /v1/types/{type}."""
    if_match = if_match_of(call.headers.get(b"if-match"))
    given = call.body_as(TypeBody)
    _refuse_other_name(given.name, call.path["type"])
    saved = await call.parts.definitions.put_type(
        call.path["type"],
        TypeDefinition(**fields_of(given, TypeDefinition)),
        if_match,
        dry_run=call.query_as(PutQuery).dry_run,
    )
    return Reply(_shown(saved), headers=(etag_of(saved.version),))


async def delete_type(call: Call) -> Reply:
    """DELETE /v1/types/{type}."""
    await call.parts.definitions.delete_type(call.path["type"], if_match_of(call.headers.get(b"if-match")))
    return Reply(status=204)


async def versions(call: Call) -> Reply:
    """GET /v1/types/{type}/versions."""
    found = await call.parts.definitions.versions(call.path["type"])
    listed = [
        VersionShown(
            **fields_of(one.definition, TypeDefinition),
            version=one.version,
            created_at=rfc3339(at_us) if at_us else None,
        )
        for one, at_us in found
    ]
    return Reply(Versions(listed, None))


async def preview(call: Call) -> Reply:
    """POST /v1/types/{type}/preview."""
    wanted = call.body_as(PreviewRequest)
    kind = await _previewed(call, wanted)
    people = call.parts.people
    recipient = (await people.user(wanted.user)).profile if wanted.user is not None else NOBODY
    actor = (await people.user(wanted.actor)).profile if wanted.actor is not None else None
    locale = wanted.locale or recipient.locale
    event = Event(
        id="evt_preview",
        type=kind.name,
        accepted_at_us=call.parts.clock.now_us(),
        source=f"http:{call.key_id}",
        slices=1,
        title=wanted.title,
        body=wanted.body,
        url=wanted.url,
        icon=wanted.icon,
        data=wanted.data,
        actor=wanted.actor,
    )
    rendered = render_content(event, kind, recipient, locale, actor=actor)
    wrong = [f"{one.pointer}: {one.detail}" for one in data_errors(kind, wanted.data)]
    chosen = pick_locale(kind.definition.locales, locale)
    return Reply(Preview(rendered.content, chosen, [*wrong, *rendered.problems]))


async def _previewed(call: Call, wanted: PreviewRequest) -> TypeVersion:
    """The draft, checked as a definition is, or the stored type."""
    if wanted.definition is None:
        return await call.parts.definitions.known_type(call.path["type"])
    check_type(wanted.definition, "/definition")
    # A number that no stored version has: the schema is compiled anew for each draft.
    return TypeVersion(call.path["type"], -1, wanted.definition)


async def list_categories(call: Call) -> Reply:
    """GET /v1/categories."""
    page = call.query_as(Page)
    definitions = call.parts.definitions
    known = (await definitions.current()).categories
    names, following = page_of_names(list(known), page.limit, page.cursor)
    listed = [_shown_category(name, definitions.category_version(name), known[name]) for name in names]
    return Reply(Categories(listed, following))


async def get_category(call: Call) -> Reply:
    """GET /v1/categories/{category}."""
    definition, version = await call.parts.definitions.category(call.path["category"])
    return Reply(_shown_category(call.path["category"], version, definition), headers=(etag_of(version),))


async def put_category(call: Call) -> Reply:
    """PUT /v1/categories/{category}."""
    if_match = if_match_of(call.headers.get(b"if-match"))
    given = call.body_as(CategoryBody)
    _refuse_other_name(given.name, call.path["category"])
    definition = CategoryDefinition(**fields_of(given, CategoryDefinition))
    version = await call.parts.definitions.put_category(
        call.path["category"], definition, if_match, dry_run=call.query_as(PutQuery).dry_run
    )
    return Reply(_shown_category(call.path["category"], version, definition), headers=(etag_of(version),))


async def delete_category(call: Call) -> Reply:
    """DELETE /v1/categories/{category}."""
    if_match = if_match_of(call.headers.get(b"if-match"))
    await call.parts.definitions.delete_category(call.path["category"], if_match)
    return Reply(status=204)


_STALE = ("stale_version",)
_IF_MATCH = ("If-Match",)

ROUTES = [
    Route(
        "GET",
        "/v1/types",
        list_types,
        ("types", "read"),
        "List types",
        Types,
        query=Page,
        codes=("invalid_cursor",),
    ),
    Route("GET", "/v1/types/{type}", get_type, ("types", "read"), "Read a type", TypeShown),
    Route(
        "PUT",
        "/v1/types/{type}",
        put_type,
        ("types",),
        "Define a type; what does not compile is refused",
        TypeShown,
        query=PutQuery,
        body=TypeBody,
        body_kind="json",
        body_limit=TYPE_LIMIT_BYTES,
        codes=(*_STALE, "invalid_schema", "invalid_template", "invalid_definition"),
        headers=_IF_MATCH,
    ),
    Route(
        "DELETE",
        "/v1/types/{type}",
        delete_type,
        ("types",),
        "Forget a type",
        None,
        204,
        codes=(*_STALE, "conflict"),
        headers=_IF_MATCH,
    ),
    Route(
        "GET", "/v1/types/{type}/versions", versions, ("types", "read"), "All versions of a type", Versions
    ),
    Route(
        "POST",
        "/v1/types/{type}/preview",
        preview,
        ("types",),
        "Render a type, or a draft of it, as the app would show it",
        Preview,
        body=PreviewRequest,
        body_kind="json",
        body_limit=TYPE_LIMIT_BYTES,
        codes=("invalid_schema", "invalid_template", "invalid_definition"),
    ),
    Route(
        "GET",
        "/v1/categories",
        list_categories,
        ("types", "read"),
        "List categories",
        Categories,
        query=Page,
        codes=("invalid_cursor",),
    ),
    Route(
        "GET", "/v1/categories/{category}", get_category, ("types", "read"), "Read a category", CategoryShown
    ),
    Route(
        "PUT",
        "/v1/categories/{category}",
        put_category,
        ("types",),
        "Define a category",
        CategoryShown,
        query=PutQuery,
        body=CategoryBody,
        body_kind="json",
        codes=_STALE,
        headers=_IF_MATCH,
    ),
    Route(
        "DELETE",
        "/v1/categories/{category}",
        delete_category,
        ("types",),
        "Forget a category's words and defaults",
        None,
        204,
        codes=(*_STALE, "conflict"),
        headers=_IF_MATCH,
    ),
]
