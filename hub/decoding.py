"""Bytes to structs: JSON that is wrong becomes a `Refused` that says where and why.

400 means the bytes are not JSON; 422 means the JSON is not what the call takes, with a JSON pointer (RFC 6901).
"""

import re
from typing import Any, Final, TypeVar

import msgspec

from hub.errors import FieldError, Refused

T = TypeVar("T")

_PATH: Final = re.compile(r" - at (?:`key` in )?`(\$[^`]*)`$")
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[(\.\.\.)\]")
_FIELD: Final = re.compile(r"(?:unknown|required) field `([^`]*)`")
_UNNAMED: Final = "..."  # how msgspec names the entry of a mapping
_TRIALS: Final = 200  # entries that are tried to find the one that is meant

Step = str | int


def decode_json(decoder: "msgspec.json.Decoder[T]", raw: bytes | msgspec.Raw, pointer: str = "") -> T:
    """Decode and validate. `pointer` is where `raw` stood in a larger document. Raises `Refused` (400 or 422)."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        # The decoder stops at the first wrong value; whether the rest is JSON at all is seen only now.
        document = _any_json(raw)
        wrong = _field_error(error, decoder.type, document, pointer)
        detail = f"The request does not have the right shape{wrong.pointer and f', at {wrong.pointer}'}: {wrong.detail}"
        raise Refused(422, "invalid_request", detail, [wrong]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error, raw) from None


def _any_json(raw: bytes | msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error, raw) from None


def _malformed(error: Exception, raw: bytes | msgspec.Raw) -> Refused:
    if isinstance(error, RecursionError):
        return Refused(400, "malformed_json", "The JSON is nested too deeply.")
    if not bytes(raw).strip():
        return Refused(400, "malformed_json", "The body is empty; a JSON document is needed.")
    return Refused(400, "malformed_json", f"The body is not valid JSON: {error}.")


def _field_error(error: msgspec.ValidationError, kind: Any, document: Any, pointer: str) -> FieldError:
    text = str(error)
    found = _PATH.search(text)
    sentence = text[: found.start()] if found else text
    steps = _name_steps(_steps_of(text), document, kind)
    field = _FIELD.search(sentence)
    code = "invalid_value"
    if field:
        steps.append(field.group(1))
        code = "unknown_field" if "unknown field" in sentence else "missing_field"
    return FieldError(pointer + "".join("/" + _escape(str(step)) for step in steps), code, sentence + ".")


def _steps_of(text: str) -> list[Step]:
    found = _PATH.search(text)
    path = found.group(1) if found else "$"
    return [name or (int(index) if index else _UNNAMED) for name, index, _ in _STEP.findall(path)]


def _name_steps(steps: list[Step], document: Any, kind: Any) -> list[Step]:
    """The steps with the keys of mappings, which msgspec leaves out: the entry that fails alone is meant."""
    named: list[Step] = []
    for position, step in enumerate(steps):
        if step != _UNNAMED:
            named.append(step)
            continue
        entries = _at(document, named)
        for key in list(entries)[:_TRIALS]:
            alone = _with(document, named, {key: entries[key]})
            if _fails_at(alone, kind, steps[position:], len(named)):
                document = alone
                named.append(key)
                break
        else:
            return named  # as far as it can be told
    return named


def _at(document: Any, steps: list[Step]) -> Any:
    for step in steps:
        document = document[step]
    return document


def _with(document: Any, steps: list[Step], value: Any) -> Any:
    """A copy of the document with another value in one place."""
    if not steps:
        return value
    copy: Any = list(document) if isinstance(document, list) else dict(document)
    copy[steps[0]] = _with(document[steps[0]], steps[1:], value)
    return copy


def _fails_at(document: Any, kind: Any, rest: list[Step], depth: int) -> bool:
    try:
        msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        return _steps_of(str(error))[depth:] == rest
    return False


def _escape(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")
