"""The catalog: types and categories, cached by their version. Shared by HTTP, the pages and the command line.

`current()` asks the store for the version every time; `recent()` and `type()` are at most `BOUND_SECONDS` old, and
not at all for what this process changed. What is stored has compiled once.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog

from hub.batches import Catalog as CatalogView
from hub.decoding import decode_json
from hub.definitions import Definitions
from hub.errors import FieldError, Refused
from hub.model.checks import category_errors, type_errors
from hub.model.types import MESSAGE, CategoryDefinition, TypeDefinition, TypeVersion
from hub.model.vocabulary import is_id
from hub.ports import Clock, DefinitionStore
from hub.versions import IfMatch, expected_version

BOUND_SECONDS: Final = 1
BUILT_IN_CATEGORIES: Final = {MESSAGE.definition.category: CategoryDefinition(title="Messages")}

_types = msgspec.json.Decoder(TypeDefinition)
_categories = msgspec.json.Decoder(CategoryDefinition)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` did, by name: each definition was changed, or was so already."""

    types: Mapping[str, bool] = field(default_factory=dict)
    categories: Mapping[str, bool] = field(default_factory=dict)


class Catalog:
    """Reads and changes types and categories."""

    def __init__(self, store: DefinitionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = asyncio.Lock()
        self._catalog = CatalogView({}, {})
        self._category_versions: Mapping[str, int] = {}
        self._version = -1
        self._checked_us: int | None = None
        self._changes = 0

    # ------------------------------------------------------------ reading

    async def current(self) -> CatalogView:
        """The catalog of the newest version; one query when nothing changed."""
        async with self._lock:
            return await self._look()

    async def at(self, version: int) -> CatalogView:
        """The catalog of a version that the caller has just read; no query when it is the one at hand."""
        return self._catalog if version == self._version else await self.current()

    async def _look(self) -> CatalogView:
        now_us, changes = self._clock.now_us(), self._changes
        version = await self._store.catalog_version()
        if version != self._version:
            categories = await self._store.categories()
            known = {name: definition for name, (_, definition) in categories.items()}
            types = await self._store.types()
            self._catalog = CatalogView({MESSAGE.name: MESSAGE} | types, BUILT_IN_CATEGORIES | known)
            self._category_versions = {name: number for name, (number, _) in categories.items()}
            self._version = version  # read first: what changed meanwhile is read again
        if changes == self._changes:  # else it was changed while we looked
            self._checked_us = now_us
        return self._catalog

    async def recent(self) -> CatalogView:
        """The catalog as it was at most `BOUND_SECONDS` ago."""
        if self._is_recent():
            return self._catalog
        async with self._lock:  # those who wait here share the look of the first
            return self._catalog if self._is_recent() else await self._look()

    def _is_recent(self) -> bool:
        age_us = self._clock.now_us() - self._checked_us if self._checked_us is not None else -1
        return 0 <= age_us < BOUND_SECONDS * 1_000_000

    async def type(self, name: str) -> TypeVersion | None:
        """A type, built in or defined; one that is not known is looked up at once."""
        found = (await self.recent()).types.get(name)
        return found or (await self.current()).types.get(name)

    async def category(self, name: str) -> tuple[CategoryDefinition, int]:
        """A category and its version (0: built in). Raises `Refused(404)`."""
        found = (await self.current()).categories.get(name)
        if found is None:
            raise _unknown("category", name)
        return found, self.category_version(name)

    def category_version(self, name: str) -> int:
        """The version of a category of the catalog that was read last."""
        return self._category_versions.get(name, 0)

    async def known_type(self, name: str) -> TypeVersion:
        """A type as it is now. Raises `Refused(404)`."""
        found = (await self.current()).types.get(name)
        if found is None:
            raise _unknown("type", name)
        return found

    async def versions(self, name: str) -> list[tuple[TypeVersion, int]]:
        """All versions of a type, newest first, with the moments of their creation. Raises `Refused(404)`."""
        found = await self._store.type_versions(name)
        if not found and name == MESSAGE.name:
            return [(MESSAGE, 0)]
        if not found:
            raise _unknown("type", name)
        return found

    def forget(self) -> None:
        """Look again at the next use: somebody changed the catalog."""
        self._checked_us = None
        self._changes += 1

    # ------------------------------------------------------------ changing

    async def put_type(
        self, name: str, definition: TypeDefinition, if_match: IfMatch = None, *, dry_run: bool = False
    ) -> TypeVersion:
        """Store a new version; a definition that is the current one stays it. Raises `Refused` (412, 422)."""
        current = (await self.current()).types.get(name)
        number = current.version if current is not None else 0
        expected = expected_version(if_match, number)
        check_type(definition)
        if dry_run:
            return TypeVersion(name, number, definition)
        saved = await self._store.save_type(name, definition, expected)
        self.forget()
        return saved

    async def delete_type(self, name: str, if_match: IfMatch = None) -> None:
        """Forget a type. Raises `Refused` (404, 409, 412)."""
        found = await self.known_type(name)
        if found.version == 0:
            raise Refused(409, "conflict", f"The type {name!r} is built in and cannot be deleted.")
        expected_version(if_match, found.version)
        await self._store.delete_type(name)
        self.forget()

    async def put_category(
        self, name: str, definition: CategoryDefinition, if_match: IfMatch = None, *, dry_run: bool = False
    ) -> int:
        """Store a category; returns its version. Raises `Refused(412)`."""
        await self.current()
        number = self.category_version(name)
        expected = expected_version(if_match, number)
        check_category(definition)
        if dry_run:
            return number
        version = await self._store.save_category(name, definition, expected)
        self.forget()
        return version

    async def delete_category(self, name: str, if_match: IfMatch = None) -> None:
        """Forget a category's words and defaults; types may go on naming it. Raises `Refused` (404, 409, 412)."""
        _, number = await self.category(name)
        if number == 0:
            raise Refused(409, "conflict", f"The category {name!r} is built in and cannot be deleted.")
        expected_version(if_match, number)
        await self._store.delete_category(name)
        self.forget()

    # ------------------------------------------------------------ folders

    async def apply(self, definitions: Definitions, *, dry_run: bool = False) -> Applied:
        """Store what a folder defines, all of it or, at the first mistake, nothing. Raises `Refused(422)`."""
        types = {name: _decoded(_types, "types", name, raw) for name, raw in definitions.types.items()}
        categories = {
            name: _decoded(_categories, "categories", name, raw)
            for name, raw in definitions.categories.items()
        }
        for name, definition in types.items():
            check_type(definition, f"/types/{name}")
        for name, category in categories.items():
            check_category(category, f"/categories/{name}")
        before = await self.current()
        changed_categories = {
            name: before.categories.get(name) != definition for name, definition in categories.items()
        }
        changed_types = {
            name: name not in before.types or before.types[name].definition != definition
            for name, definition in types.items()
        }
        if not dry_run:
            for name in (name for name, changed in changed_categories.items() if changed):
                await self._store.save_category(name, categories[name], None)
            for name in (name for name, changed in changed_types.items() if changed):
                await self._store.save_type(name, types[name], None)
            if any([*changed_categories.values(), *changed_types.values()]):
                self.forget()
        return Applied(changed_types, changed_categories)

    async def export(self) -> Definitions:
        """All that was defined (not what is built in), as `clarion export` writes it."""
        catalog = await self.current()
        return Definitions(
            {name: msgspec.to_builtins(one.definition) for name, one in catalog.types.items() if one.version},
            {
                name: msgspec.to_builtins(one)
                for name, one in catalog.categories.items()
                if self.category_version(name)
            },
        )


def check_type(definition: TypeDefinition, pointer: str = "") -> None:
    """Raise `Refused(422)` for a type that cannot be planned with: schema, templates, channels, locales."""
    errors = type_errors(definition, pointer)
    if errors:
        code = (
            errors[0].code
            if errors[0].code in ("invalid_schema", "invalid_template")
            else "invalid_definition"
        )
        raise Refused(422, code, f"The type cannot be used: {errors[0].detail}", errors)


def check_category(definition: CategoryDefinition, pointer: str = "") -> None:
    """Raise `Refused(422)` for a category that cannot be shown."""
    errors = category_errors(definition, pointer)
    if errors:
        raise Refused(422, "invalid_definition", f"The category cannot be used: {errors[0].detail}", errors)


def _decoded(decoder: msgspec.json.Decoder[Any], kind: str, name: str, raw: object) -> Any:
    pointer = f"/{kind}/{name}"
    if not is_id(name):
        raise Refused(
            422, "invalid_id", f"{name!r} cannot be a name.", [FieldError(pointer, "invalid_id", "")]
        )
    return decode_json(decoder, msgspec.json.encode(raw), pointer)


def _unknown(what: str, name: str) -> Refused:
    return Refused(404, "not_found", f"The {what} {name!r} is not defined.")
