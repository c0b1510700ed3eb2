"""Addresses of providers (`smtp://user:pass@host:587?starttls=1`): read once at the start, refused with a sentence.

What a scheme accepts stands in one table, so that a mistake in typing is named before anything is sent. No sentence
shows what may be a secret: user, password, or the value of an option.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from hub.model.addresses import is_phone
from hub.model.vocabulary import Channel
from hub.origins import is_loopback_host

Check = Callable[[str], bool]


def _flag(text: str) -> bool:
    return text in ("0", "1")


def _count(text: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,3}", text) is not None


def _positive(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", text) is not None and float(text) > 0


def _sender(text: str) -> bool:
    """A number, a short code, an alphanumeric sender or a messaging service."""
    return is_phone(text) or re.fullmatch(r"[A-Za-z0-9 ]{1,11}|[0-9]{3,8}|MG[0-9a-f]{32}", text) is not None


def _file(text: str) -> bool:
    return Path(text).expanduser().is_file()


def _endpoint(text: str) -> bool:
    parts = urlsplit(text)
    host = parts.hostname
    return host is not None and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback_host(host))
    )


@dataclass(frozen=True, slots=True)
class Scheme:
    """What one scheme accepts: its default port, its options, and which of them and of the rest must be there."""

    port: int
    options: Mapping[str, tuple[Check, str]]
    required: frozenset[str] = frozenset()  # of `user`, `password` and the options
    loopback_only: bool = False


_ANY: Final[dict[str, tuple[Check, str]]] = {
    "connections": (_count, "a whole number from 1"),
    "per_second": (_positive, "a number above 0"),
    "timeout_seconds": (_positive, "a number of seconds above 0"),
}
_SMTP: Final = {
    **_ANY,
    "starttls": (_flag, "0 or 1"),
    "verify": (_flag, "0 or 1"),
    "ca": (_file, "a file with certificates"),
}
_TWILIO: Final = {**_ANY, "from": (_sender, "a number such as +15005550006, a short code or a sender's name")}
_FCM: Final = {
    **_ANY,
    "credentials": (_file, "a service account's JSON file"),
    "endpoint": (_endpoint, "an https:// address (http:// on a loopback host)"),
}
_TWILIO_NEEDS: Final = frozenset({"user", "password", "from"})

SCHEMES: Final[dict[Channel, dict[str, Scheme]]] = {
    Channel.EMAIL: {"smtp": Scheme(587, _SMTP), "smtps": Scheme(465, _SMTP)},
    Channel.SMS: {
        "twilio": Scheme(443, _TWILIO, _TWILIO_NEEDS),
        "twilio+http": Scheme(80, _TWILIO, _TWILIO_NEEDS, loopback_only=True),
    },
    Channel.MOBILE_PUSH: {"fcm": Scheme(443, _FCM, frozenset({"credentials"}))},
}
APPRISE: Final = "apprise+"


@dataclass(frozen=True, slots=True)
class ProviderUrl:
    """A provider's address, taken apart. Printing it shows no secret.

    `name`: scheme and host (for Apprise the service), the provider's name in logs and metrics. `inner`: for Apprise, its
    own address.
    """

    channel: Channel
    scheme: str
    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    inner: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What logs and metrics call it."""
        if self.inner is not None:
            return self.scheme
        default = SCHEMES[self.channel][self.scheme].port
        return f"{self.scheme}://{self.host}" + ("" if self.port == default else f":{self.port}")

    def number(self, name: str, default: float) -> float:
        """An option that is a number."""
        return float(self.options.get(name, default))

    def is_on(self, name: str, *, default: bool) -> bool:
        """An option that is 0 or 1."""
        return self.options.get(name, "1" if default else "0") == "1"


def parse_providers(channel: Channel, text: str) -> tuple[ProviderUrl, ...]:
    """Addresses separated by spaces, in failover order. Raises ValueError with a sentence's part that names the mistake."""
    found: list[ProviderUrl] = []
    words = text.split()
    for number, word in enumerate(words, 1):
        try:
            found.append(parse_provider(channel, word))
        except ValueError as error:
            place = f"provider {number} of {len(words)}: " if len(words) > 1 else ""
            raise ValueError(f"{place}{error}") from None
    names = [one.name for one in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} is listed twice")
    return tuple(found)


def parse_provider(channel: Channel, text: str) -> ProviderUrl:
    """One address. Raises ValueError."""
    scheme = text.partition("://")[0] if "://" in text else ""
    if channel is Channel.SMS and scheme.startswith(APPRISE):
        return _parse_apprise(text)
    known = SCHEMES[channel]
    if scheme not in known:
        raise ValueError(_wrong_scheme(channel, scheme))
    rules = known[scheme]
    parts = urlsplit(text)
    try:
        port = parts.port or rules.port
    except ValueError:
        raise ValueError("the port is not a number up to 65535") from None
    if not parts.hostname:
        raise ValueError(f"{scheme}:// needs a host")
    if parts.path not in ("", "/") or parts.fragment:
        raise ValueError(f"{scheme}:// takes no path")
    if rules.loopback_only and not is_loopback_host(parts.hostname):
        raise ValueError(f"{scheme}:// sends its password in the clear, so it is for a loopback host only")
    options = _options(scheme, parts.query, rules)
    host = parts.netloc.rpartition("@")[2] if scheme == "fcm" else parts.hostname  # a project's case counts
    url = ProviderUrl(channel, scheme, host, port, _text(parts.username), _text(parts.password), options)
    given = {*options, *(name for name in ("user", "password") if getattr(url, name))}
    if missing := sorted(rules.required - given):
        raise ValueError(f"{scheme}:// needs {missing[0]}")
    return url


def _options(scheme: str, query: str, rules: Scheme) -> dict[str, str]:
    options: dict[str, str] = {}
    # A plus stands for itself here: `from=+15005550006` is what people write.
    for name, value in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
        if name not in rules.options:
            close = get_close_matches(name, rules.options, n=1)
            hint = (
                f"; did you mean {close[0]}?" if close else f"; it takes {', '.join(sorted(rules.options))}"
            )
            raise ValueError(f"{scheme}:// has no option {name!r}{hint}")
        if name in options:
            raise ValueError(f"{name} is given twice")
        check, accepts = rules.options[name]
        if not check(value):
            raise ValueError(f"{name} must be {accepts}")
        options[name] = value
    return options


def _wrong_scheme(channel: Channel, scheme: str) -> str:
    known = [f"{name}://" for name in SCHEMES[channel]]
    if channel is Channel.SMS:
        known.append(f"{APPRISE}SCHEME://")
    close = get_close_matches(f"{scheme}://", known, n=1, cutoff=0.7) if scheme else []
    hint = f"did you mean {close[0]}?" if close else f"it must begin with {' or '.join(known)}"
    return f"the scheme is {scheme + '://' if scheme else 'missing'}; {hint}"


def _parse_apprise(text: str) -> ProviderUrl:
    inner = text[len(APPRISE) :]
    service = inner.partition("://")[0]
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", service) or len(inner) <= len(service) + 3:
        raise ValueError(f"{APPRISE}SCHEME:// needs an address that Apprise knows")
    return ProviderUrl(Channel.SMS, f"{APPRISE}{service}", service, 0, inner=inner)


def _text(part: str | None) -> str | None:
    return None if part is None else unquote(part)
