"""Types and categories as a folder: what `clarion apply DIR` reads and `clarion export DIR` writes.

    DIR/types/<type>.toml            one type each (folders inside `types` are only for order)
    DIR/categories/<category>.toml   one category each
    beside them                      template files: `body_file = "order.paid.txt"` stands for `body = …`

A `<key>_file` works for every text of a type (title, body, url, icon, subject, html, mjml, text), in its
channels and locales too; `schema_file` names a JSON file. A folder is read whole or not at all: the first
mistake raises `DefinitionError`, one sentence with the file and the key. Nothing outside it is ever read.
"""

import json
import re
import tomllib
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from hub.errors import DefinitionError
from hub.model.types import CategoryDefinition, ChannelRule, Texts, TypeDefinition
from hub.model.vocabulary import is_id

Json = dict[str, Any]
KINDS: dict[str, Any] = {"types": TypeDefinition, "categories": CategoryDefinition}
TEXTS = ("title", "body", "url", "icon", "subject", "html", "mjml", "text")
ENDINGS = {"html": "html", "mjml": "mjml"}  # every other text is .txt


@dataclass(frozen=True, slots=True)
class Definitions:
    """Types and categories by name, each as the JSON that its PUT call takes."""

    types: dict[str, Json] = field(default_factory=dict)
    categories: dict[str, Json] = field(default_factory=dict)


# ---------------------------------------------------------------- reading


def read_folder(path: Path) -> Definitions:
    """All definitions of a folder, validated. Raises `DefinitionError`."""
    if not path.is_dir():
        raise DefinitionError(f"{path} is not a folder; give one that holds types/ and categories/.")
    found: dict[str, dict[str, Json]] = {}
    for kind, model in KINDS.items():
        found[kind] = _read_kind(path.resolve(), kind, model)
    for stray in sorted(path.glob("*.toml")):
        raise DefinitionError(f"{stray.name} lies outside types/ and categories/, so it defines nothing.")
    if not any((path / kind).is_dir() for kind in KINDS):
        raise DefinitionError(f"{path} has neither types/ nor categories/, so there is nothing to read.")
    return Definitions(**found)


def _read_kind(root: Path, kind: str, model: Any) -> dict[str, Json]:
    found: dict[str, Json] = {}
    origin: dict[str, str] = {}
    for file in sorted((root / kind).rglob("*.toml")):
        shown, name = file.relative_to(root).as_posix(), file.name.removesuffix(".toml")
        if not is_id(name):
            raise DefinitionError(f"{shown}: {name!r} cannot be a name; use 1 to 128 of A-Za-z0-9._:@+|~=-.")
        if name in found:
            raise DefinitionError(f"{shown}: {name!r} is defined in {origin[name]} already.")
        found[name], origin[name] = _read_definition(root, file, shown, model), shown
    return found


def _read_definition(root: Path, file: Path, shown: str, model: Any) -> Json:
    try:
        table = tomllib.loads(_read_text(root, file, shown))
        _refuse_other_than_json(table, shown, "")
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"{shown}: this is not TOML: {error}.") from None
    if model is TypeDefinition:
        _load_files(root, file, shown, table)
    if message := _mistake(table, model):
        raise DefinitionError(f"{shown}: {_sentence(*message, model)}")
    return table


def _read_text(root: Path, file: Path, shown: str) -> str:
    """A file as text; one that a link leads out of the folder counts as outside."""
    try:
        if not file.resolve().is_relative_to(root):
            raise DefinitionError(f"{shown} leads out of the folder; only files inside it are read.")
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{shown}: byte {error.start} is not UTF-8; save the file as UTF-8.") from None
    except FileNotFoundError:
        raise DefinitionError(f"{shown} does not exist.") from None
    except (OSError, ValueError, RuntimeError) as error:  # also a NUL in the name, and links in a circle
        reason = error.strerror if isinstance(error, OSError) else error
        raise DefinitionError(f"{shown} cannot be read: {reason}.") from None


def _refuse_other_than_json(value: Any, shown: str, key: str) -> None:
    """TOML knows dates and NaN; definitions are JSON."""
    match value:
        case dict():
            for name, inner in value.items():
                _refuse_other_than_json(inner, shown, f"{key}.{name}" if key else name)
        case list():
            for place, inner in enumerate(value):
                _refuse_other_than_json(inner, shown, f"{key}[{place}]")
        case float() if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124  (NaN)
            raise DefinitionError(f"{shown}: {key!r} is {value}, which JSON cannot say.")
        case str() | bool() | int() | float():
            pass
        case _:
            raise DefinitionError(f"{shown}: {key!r} is a date or time; write it as a text in quotes.")


def _load_files(root: Path, file: Path, shown: str, table: Json) -> None:
    """Put the content of every `<key>_file` in its place."""
    for place, texts in _text_tables(table):
        keys = (*TEXTS, "schema") if not place else TEXTS
        for key in [key for key in texts if key.removesuffix("_file") in keys and key.endswith("_file")]:
            name, target, where = texts.pop(key), key.removesuffix("_file"), ".".join([*place, key])
            if not isinstance(name, str) or not name:
                raise DefinitionError(f"{shown}: {where!r} must name a file beside it.")
            if target in texts:
                raise DefinitionError(f"{shown}: {where!r} and {target!r} both give the text; keep one.")
            text = _read_text(root, file.parent / name, f"{shown}: {where!r}: the file {name!r}")
            texts[target] = _parse_schema(text, f"{shown}: {where!r}") if target == "schema" else text


def _parse_schema(text: str, shown: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"{shown} is not JSON: {error}.") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}")


def _text_tables(table: Json) -> list[tuple[list[str], Json]]:
    """The tables that hold texts, with their places: the type, its channels, its locales, their channels."""
    found: list[tuple[list[str], Json]] = [([], table)]
    for place, owner in [([], table), *_inner(table, [], "locales")]:
        found += [(place, owner)] if place else []
        found += _inner(owner, place, "channels")
    return found


def _inner(owner: Json, place: list[str], key: str) -> list[tuple[list[str], Json]]:
    inner = owner.get(key)
    if not isinstance(inner, dict):
        return []
    return [([*place, key, name], value) for name, value in inner.items() if isinstance(value, dict)]


def _mistake(table: Json, model: Any) -> tuple[str, str] | None:
    """What the model says against a table, and the key that it says it of."""
    if not (message := _complaint(table, model)):
        return None
    text, _, place = message.partition(" - at `")
    key = re.sub(r"^(key` in `)?\$\.?", "", place.removesuffix("`"))
    section, unnamed, rest = key.partition("[...]")
    # msgspec does not name the entry of a table; the one that fails alone is meant.
    for name, entry in table[section].items() if unnamed and section in table else ():
        if _complaint({**table, section: {name: entry}}, model):
            key = f"{section}.{name}{rest}"
    return text, key.replace("[...]", ".*")


def _complaint(table: Json, model: Any) -> str | None:
    try:
        msgspec.convert(table, model)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def _sentence(text: str, key: str, model: Any) -> str:
    """A message of msgspec as one sentence that names the key."""
    where = f" in {key!r}" if key else ""
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", text):
        owner = {"": model, "channels": ChannelRule, "locales": Texts}.get(key.partition(".")[0])
        known = msgspec.structs.fields(owner) if owner else ()
        close = get_close_matches(unknown[1].removesuffix("_file"), [field.name for field in known], n=1)
        return f"the key {unknown[1]!r}{where} is unknown" + (
            f"; did you mean {close[0]!r}?" if close else "."
        )
    if missing := re.fullmatch(r"Object missing required field `(.*)`", text):
        return f"the key {missing[1]!r}{where} is missing."
    return f"{f'the key {key!r}: ' if key else ''}{text[:1].lower()}{text[1:]}."


# ---------------------------------------------------------------- writing


def write_folder(path: Path, definitions: Definitions) -> None:
    """Write a folder that `read_folder` reads as the same definitions; a null counts as left out.

    Texts of several lines and schemas go to files beside their definition. Files of the same names are
    overwritten; a definition in the folder that is not among the given ones is refused before anything is
    written, because the folder would then say more than was exported. Raises `DefinitionError`.
    """
    files: dict[Path, bytes] = {}
    for kind, entries in (("types", definitions.types), ("categories", definitions.categories)):
        folder, taken = path / kind, set[str]()
        for name, definition in sorted(entries.items()):
            if not is_id(name):
                raise DefinitionError(f"{name!r} cannot be the name of a file in {kind}/.")
            table = _without_nulls(definition)
            if kind == "types":
                files |= {folder / file: text for file, text in _take_out_texts(name, table, taken).items()}
            try:
                files[folder / f"{name}.toml"] = tomli_w.dumps(table).encode()
            except (TypeError, ValueError) as error:
                raise DefinitionError(f"{kind}/{name}.toml cannot be written: {error}.") from None
        for stray in sorted(folder.rglob("*.toml")):
            if stray not in files:
                raise DefinitionError(
                    f"{stray.relative_to(path).as_posix()} is in the folder already and not in the export; "
                    "remove it or choose an empty folder."
                )
    try:
        for kind in KINDS:
            (path / kind).mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            file.write_bytes(content)
    except OSError as error:
        raise DefinitionError(f"{error.filename} cannot be written: {error.strerror}.") from None


def _without_nulls(table: Json) -> Json:
    """A copy without nulls, which TOML lacks; a schema is kept whole."""
    return {
        key: _without_nulls(value) if isinstance(value, dict) and key != "schema" else value
        for key, value in table.items()
        if value is not None
    }


def _take_out_texts(name: str, table: Json, taken: set[str]) -> dict[str, bytes]:
    """Move what does not fit into TOML well to files: `<type>.<place>.<ending>`, by name; `taken` grows."""
    files: dict[str, bytes] = {}

    def move(place: list[str], owner: Json, key: str, ending: str, content: bytes) -> None:
        words = [
            re.sub(r"[^A-Za-z0-9_-]", "_", word) for word in place if word not in ("channels", "locales")
        ]
        file = base = ".".join([name, *words] if key == ending else [name, *words, key])
        number = 1
        while f"{file}.{ending}".lower() in taken:
            number += 1
            file = f"{base}-{number}"
        taken.add(f"{file}.{ending}".lower())
        files[f"{file}.{ending}"] = content
        owner[f"{key}_file"] = f"{file}.{ending}"
        del owner[key]

    for place, owner in _text_tables(table):
        for key in TEXTS:
            text = owner.get(key)
            # A first U+FEFF would be taken for a byte order mark on the way back.
            if isinstance(text, str) and "\n" in text and not text.startswith("\ufeff"):
                move(place, owner, key, ENDINGS.get(key, "txt"), text.encode())
    if "schema" in table:
        schema = json.dumps(table["schema"], ensure_ascii=False, indent=2).encode()
        move([], table, "schema", "json", schema)
    return files
