"""The shapes of what names people and places: e-mail addresses, phone numbers, locales, time zones, links, texts.

Each check is a yes or no without a look at the world. `profile_errors` is the one list of rules for profiles, shared
by events that upsert users and by the calls that change them.
"""

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final
from unicodedata import normalize

import msgspec

from hub.errors import FieldError
from hub.model.schedule import is_timezone
from hub.model.vocabulary import Channel

ATTRIBUTES_LIMIT_BYTES: Final = 16_384
JSON_DEPTH_LIMIT: Final = 32

_EMAIL: Final = re.compile(
    r"(?P<local>[^\s@<>(),;:\\\"\[\]\x00-\x20\x7f]{1,64})@"
    r"(?P<domain>[^\W_](?:[\w-]{0,61}[^\W_])?(?:\.[^\W_](?:[\w-]{0,61}[^\W_])?)*)"
)
_PHONE: Final = re.compile(r"\+[1-9][0-9]{6,14}")  # E.164
_LOCALE: Final = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")  # the shape of BCP 47
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_WEB: Final = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://[^/?#]+")
_NOT_IN_LINKS: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\\<>\"\ud800-\udfff]")
_NOT_IN_TEXTS: Final = re.compile("[\x00\ud800-\udfff]")


def is_email(text: str) -> bool:
    """Tell whether a text looks like one bare address (no display name, no quoting)."""
    found = _EMAIL.fullmatch(text)
    if found is None or len(text) > 320:
        return False
    local = found["local"]
    return not (local.startswith(".") or local.endswith(".") or ".." in local)


def ascii_domain(domain: str) -> str:
    """A host name as it travels: lower case, labels beyond ASCII as A-labels (RFC 5890 §2.3.2.1).

    Raises ValueError for a name that has none. Labels are lowered and composed, not mapped further: ß stays ß, as
    IDNA 2008 wants it, so that a mail never goes to the domain beside the one that was meant.
    """
    labels = [_ascii_label(label) for label in domain.split(".")]
    name = ".".join(labels)
    if not all(0 < len(label) <= 63 for label in labels) or len(name) > 253:
        raise ValueError(f"{domain!r} has no form that can be sent")
    return name


def _ascii_label(label: str) -> str:
    if label.isascii():
        return label.lower()
    return "xn--" + normalize("NFKC", normalize("NFKC", label).lower()).encode("punycode").decode()


def canonical_email(address: str) -> str:
    """An address as it is compared: its domain as it travels. The part before the @ stays: its case may matter there."""
    local, at, domain = address.rpartition("@")
    try:
        return f"{local}@{ascii_domain(domain)}" if at else address
    except ValueError:
        return f"{local}@{domain.lower()}"


def canonical_address(channel: Channel, address: str) -> str:
    """An address of a channel as it is compared, and as suppressions are kept."""
    return canonical_email(address) if channel is Channel.EMAIL else address


def is_phone(text: str) -> bool:
    """Tell whether a text is an international number as E.164 writes it: +821012345678."""
    return _PHONE.fullmatch(text) is not None


def is_locale(text: str) -> bool:
    """Tell whether a text has the shape of a BCP 47 tag: en, ko-KR, zh-Hant-TW."""
    return len(text) <= 35 and _LOCALE.fullmatch(text) is not None


def is_link(text: str) -> bool:
    """Tell whether a text is an http(s) address or a relative one: nothing that runs (`javascript:`, `data:`).

    Control characters, spaces and backslashes are refused because browsers drop or rewrite them before they look at
    the scheme (WHATWG URL §4.4).
    """
    if not text or _NOT_IN_LINKS.search(text):
        return False
    return _WEB.match(text) is not None if _SCHEME.match(text) else True


def is_sound(text: str) -> bool:
    """Tell whether every store can keep a text: no NUL (PostgreSQL), no lone surrogate (UTF-8)."""
    return "\x00" not in text if text.isascii() else _NOT_IN_TEXTS.search(text) is None


def escape_pointer(step: str) -> str:
    """One step of a JSON pointer (RFC 6901 §3), safe to show."""
    return step.encode("utf-8", "replace").decode().replace("~", "~0").replace("/", "~1")


def json_fault(value: Any, pointer: str = "", depth: int = 1) -> FieldError | None:
    """The first thing in a JSON value that cannot be kept, with its place; None when all of it can."""
    kind = type(value)
    if kind is str:
        if not is_sound(value):
            return FieldError(pointer, "invalid_text", "A NUL or half of a surrogate pair cannot be kept.")
    elif kind is bool or value is None:
        pass
    elif kind is int:
        if not -(1 << 63) <= value < 1 << 64:
            return FieldError(pointer, "number_too_large", "An integer must fit into 64 bits.")
    elif kind is float:
        if not isfinite(value):
            return FieldError(pointer, "invalid_number", "A number must be finite.")
    elif isinstance(value, dict | list | tuple):
        return _container_fault(value, pointer, depth)
    else:
        return FieldError(pointer, "invalid_value", "Only JSON values can be kept.")
    return None


def _container_fault(value: Any, pointer: str, depth: int) -> FieldError | None:
    if depth > JSON_DEPTH_LIMIT:
        return FieldError(pointer, "too_deep", f"At most {JSON_DEPTH_LIMIT} levels may be nested.")
    named = isinstance(value, dict)
    for step, inner in value.items() if named else enumerate(value):
        if named and not (isinstance(step, str) and is_sound(step)):
            return FieldError(
                pointer, "invalid_text", "A key with a NUL or half of a surrogate pair cannot be kept."
            )
        # This runs for every event: plain texts are passed here, and the place is written only when something is wrong.
        if type(inner) is str and inner.isascii() and "\x00" not in inner:
            continue
        if fault := json_fault(inner, "", depth + 1):
            return FieldError(
                f"{pointer}/{escape_pointer(str(step))}{fault.pointer}", fault.code, fault.detail
            )
    return None


_RULES: Final = {
    "email": (is_email, "invalid_email", "This is not an e-mail address, as in alice@example.com."),
    "phone": (is_phone, "invalid_phone", "This is not an international phone number, as in +821012345678."),
    "locale": (is_locale, "invalid_locale", "This is not a language tag, as in en or ko-KR."),
    "timezone": (is_timezone, "unknown_timezone", "This is not a known time zone, as in Europe/Berlin."),
    "avatar": (is_link, "invalid_url", "Only http, https and relative addresses are allowed."),
}


def profile_errors(fields: Mapping[str, Any], pointer: str = "") -> list[FieldError]:
    """What is wrong with the given fields of a profile (None: absent or cleared), each with its place."""
    errors = []
    for name, value in fields.items():
        if value is None:
            continue
        place = f"{pointer}/{name}"
        if fault := json_fault(value, place):
            errors.append(fault)
        elif name == "attributes" and len(msgspec.json.encode(value)) > ATTRIBUTES_LIMIT_BYTES:
            detail = f"Attributes may have at most {ATTRIBUTES_LIMIT_BYTES} bytes as JSON."
            errors.append(FieldError(place, "too_large", detail))
        elif name in _RULES and not _RULES[name][0](value):
            errors.append(FieldError(place, *_RULES[name][1:]))
    return errors
