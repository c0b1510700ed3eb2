"""Push endpoints: which addresses of push services this server would connect to, by their names alone.

An endpoint comes from a browser, so from anybody: only hosts of known push services pass, over https, on the default
port, without credentials. What a name resolves to is checked when it is connected to (`workers.channels.push_http`).
"""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from msgspec import Struct

KNOWN_HOSTS: Final = (
    "fcm.googleapis.com",  # Chrome and what is made of it
    "jmt17.google.com",  # its builds for developers
    "updates.push.services.mozilla.com",
    "*.push.services.mozilla.com",
    "web.push.apple.com",
    "*.push.apple.com",
    "*.notify.windows.com",
)
ENDPOINT_LIMIT: Final = 2048

# Written out and narrow, so that no other reader of addresses can understand it differently: no credentials, no
# fragment, no backslash, no percent sign in the host.
_ENDPOINT: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?(?P<rest>[/?][A-Za-z0-9._~:/?@!$&'()*+,;=%-]*)?"
)
_PORTS: Final = {"http": 80, "https": 443}


class Endpoint(Struct, frozen=True):
    """A push endpoint that passed. `origin`: scheme, host and port as VAPID names them (RFC 8292 §2).

    `is_loopback`: a host of this machine, which the settings name.
    """

    url: str
    origin: str
    host: str
    port: int
    is_loopback: bool = False


class PushHosts:
    """The known push services and those that the settings add: `host`, `*.host`, each with `:port` if it is another."""

    def __init__(self, extra: Sequence[str] = ()) -> None:
        self._rules = tuple(_rule(text) for text in (*KNOWN_HOSTS, *extra))

    @property
    def loopback_names(self) -> frozenset[str]:
        """Names of this machine that the settings name: only they may lead to it."""
        return frozenset(name for name, _ in self._rules if _is_loopback(name))

    def endpoint(self, url: str) -> Endpoint:
        """Read an endpoint. Raises ValueError with a sentence that says what is wrong with it."""
        found = _ENDPOINT.fullmatch(url) if len(url) <= ENDPOINT_LIMIT else None
        if found is None:
            raise ValueError(
                f"An endpoint is an https address of at most {ENDPOINT_LIMIT} characters, without credentials."
            )
        scheme, host = found["scheme"], found["host"]
        port = int(found["port"] or _PORTS[scheme])
        is_loopback = _is_loopback(host)
        if scheme != "https" and not is_loopback:
            raise ValueError("An endpoint begins with https://.")
        if not any(_matches(rule, host, port, scheme) for rule in self._rules):
            raise ValueError(f"{host}:{port} is no push service that this hub knows.")
        default = port == _PORTS[scheme]
        return Endpoint(url, f"{scheme}://{host}" + ("" if default else f":{port}"), host, port, is_loopback)


def _rule(text: str) -> tuple[str, int | None]:
    host, colon, port = text.lower().rpartition(":")
    if not colon or not port.isdigit():  # no port, or the colons of an address of version 6
        return text.lower(), None
    return host, int(port)


def _matches(rule: tuple[str, int | None], host: str, port: int, scheme: str) -> bool:
    name, named_port = rule
    if port != (_PORTS[scheme] if named_port is None else named_port):
        return False
    if name.startswith("*."):
        return host.endswith(name[1:]) and len(host) > len(name) - 1
    return host == name


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 §6.3
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_public_address(text: str) -> bool:
    """Whether an IP address is one of the public internet: not private, loopback, link-local, multicast, reserved.

    An address of version 6 that carries one of version 4 (mapped, 6to4, Teredo, NAT64) is as good as that one.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if address.version == 6:
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address.packed[:6] == _NAT64_LOCAL:
            return False
        if address.packed[:12] == _NAT64:
            inner.append(ip_address(address.packed[12:]))  # four bytes: version 4
        if any(one is not None and not is_public_address(str(one)) for one in inner):
            return False
        if address.ipv4_mapped is not None:
            return True
    return address.is_global and not address.is_multicast


_NAT64: Final = bytes.fromhex("0064ff9b0000000000000000")  # 64:ff9b::/96, RFC 6052
_NAT64_LOCAL: Final = bytes.fromhex("0064ff9b0001")  # 64:ff9b:1::/48, RFC 8215
