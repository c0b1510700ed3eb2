"""Bytes to structs: JSON that is wrong becomes a `Refused` that says where and why.

400 means the bytes are not JSON; 422 means the JSON is not what the call takes, with a JSON pointer (RFC 6901).
"""

import re
from typing import Final, TypeVar

import msgspec

from hub.errors import FieldError, Refused

T = TypeVar("T")

_PATH: Final = re.compile(r" - at `(?:key` in `)?(\$[^`]*)`$")
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[\.\.\.\]")
_FIELD: Final = re.compile(r"(?:unknown|required) field `([^`]*)`")


def decode_json(decoder: "msgspec.json.Decoder[T]", raw: bytes | msgspec.Raw, pointer: str = "") -> T:
    """Decode and validate. `pointer` is where `raw` stood in a larger document. Raises `Refused` (400 or 422)."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise Refused(
            422,
            "invalid_request",
            "The request does not have the right shape.",
            [_field_error(error, pointer)],
        ) from None
    except RecursionError:
        raise Refused(400, "malformed_json", "The JSON is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if not bytes(raw).strip():
            raise Refused(400, "malformed_json", "The body is empty; a JSON document is needed.") from None
        raise Refused(400, "malformed_json", f"The body is not valid JSON: {error}.") from None


def _field_error(error: msgspec.ValidationError, pointer: str) -> FieldError:
    text = str(error)
    found = _PATH.search(text)
    path = found.group(1) if found else "$"
    sentence = text[: found.start()] if found else text
    steps = [name or index for name, index in _STEP.findall(path) if name or index]
    field = _FIELD.search(sentence)
    code = "invalid_value"
    if field:
        steps.append(field.group(1))
        code = "unknown_field" if "unknown field" in sentence else "missing_field"
    return FieldError(pointer + "".join("/" + _escape(step) for step in steps), code, sentence + ".")


def _escape(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")
