"""Where the product is reached, and which web pages may call it (RFC 6454 origins).

Pure. An origin is allowed when it is our own (by the public address or by the Host of the request), when a
rule of `CLARION_ALLOWED_ORIGINS` names it, or, on a loopback host, when it is a loopback one.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_BRACKETED = re.compile(r"\[[0-9a-f:.]+\]")


def is_loopback_host(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    bare = host.strip("[]").lower()
    if bare == "localhost" or bare.endswith(".localhost"):  # RFC 6761 §6.3
        return True
    try:
        return ip_address(bare).is_loopback
    except ValueError:
        return False


def _split_origin(text: str) -> tuple[str, str, int]:
    """Scheme, host and port of an origin, in lower case. Raises ValueError."""
    parts = urlsplit(text.strip().lower())
    host = parts.netloc.rsplit(":", 1)[0] if re.search(r":\d+$", parts.netloc) else parts.netloc
    if parts.scheme not in _DEFAULT_PORTS or parts.path or parts.query or parts.fragment:
        raise ValueError("not an origin")
    if not _HOST_NAME.fullmatch(host.removeprefix("*.")) and not _BRACKETED.fullmatch(host):
        raise ValueError("not an origin")
    return parts.scheme, host, parts.port or _DEFAULT_PORTS[parts.scheme]


def parse_origin_rule(text: str) -> str:
    """Check one rule, `https://app.example.com` or `https://*.example.com`, and tidy it; or ValueError."""
    tidy = text.strip().lower().rstrip("/")
    _, host, _ = _split_origin(tidy)
    if host.startswith("*.") and "." not in host.removeprefix("*."):
        raise ValueError("a whole top-level domain")
    return tidy


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """The address that links carry. `url` has no slash at its end; `path` is "" or "/below"."""

    url: str
    origin: str
    path: str
    is_https: bool

    @classmethod
    def parse(cls, text: str) -> "PublicUrl":
        """Read an http or https address without query, fragment and user name. Raises ValueError."""
        parts = urlsplit(text.strip())
        if parts.query or parts.fragment or "@" in parts.netloc or "*" in parts.netloc:
            raise ValueError("only scheme, host, port and path")
        if not re.fullmatch(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*", parts.path) or "//" in parts.path:
            raise ValueError("not a path")
        origin = f"{parts.scheme}://{parts.netloc}".lower()
        _split_origin(origin)
        path = parts.path.rstrip("/")
        return cls(origin + path, origin, path, parts.scheme == "https")


@dataclass(frozen=True, slots=True)
class OriginPolicy:
    """Decides about the Origin header of a request."""

    public: PublicUrl
    rules: tuple[str, ...]
    any_loopback: bool

    def is_own(self, origin: str, host: str | None) -> bool:
        """Whether the page is our own: from the public address, or from the Host that it now calls."""
        try:
            scheme, name, port = _split_origin(origin)
            if (scheme, name, port) == _split_origin(self.public.origin):
                return True
            return host is not None and (scheme, name, port) == _split_origin(f"{scheme}://{host}")
        except ValueError:
            return False

    def allows(self, origin: str, host: str | None = None) -> bool:
        """Whether a page of this origin may call; `host` is the request's Host header. "null" never is."""
        try:
            scheme, name, port = _split_origin(origin)
        except ValueError:
            return False
        if name.startswith("*"):
            return False
        if self.is_own(origin, host) or (self.any_loopback and is_loopback_host(name)):
            return True
        return any(_matches(rule, scheme, name, port) for rule in self.rules)


def _matches(rule: str, scheme: str, name: str, port: int) -> bool:
    rule_scheme, rule_host, rule_port = _split_origin(rule)
    if (scheme, port) != (rule_scheme, rule_port):
        return False
    return name.endswith(rule_host[1:]) if rule_host.startswith("*.") else name == rule_host
