"""The public keys of an identity provider (RFC 7517), fetched in a thread with a timeout and kept.

An unknown `kid` makes it look again, at most once in `RETRY_SECONDS`; while the provider is away, the keys that are
known go on working, and tokens of unknown ones are refused.
"""

import asyncio
from typing import Any, Final

import httpx2
import jwt
import msgspec
import structlog

from hub.errors import TokenError
from hub.ports import Clock

ALGORITHMS: Final = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
TIMEOUT_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 10
REFRESH_SECONDS: Final = 600
LIMIT_BYTES: Final = 256 * 1024

_log = structlog.get_logger(__name__)


class _KeySet(msgspec.Struct):
    keys: list[Any]


class Jwks:
    """The keys behind one address."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._keys: dict[str | None, list[jwt.PyJWK]] = {}
        self._asked_us: int | None = None
        self._lock = asyncio.Lock()

    async def key(self, kid: object, algorithm: str) -> Any:
        """The key that a token names (or the only one). Raises `TokenError`."""
        if kid is not None and not isinstance(kid, str):
            raise TokenError("The token's `kid` is not a text.")
        if self._is_older_than(REFRESH_SECONDS):
            await self._refresh(REFRESH_SECONDS)
        found = self._find(kid, algorithm)
        if found is None and self._is_older_than(RETRY_SECONDS):
            await self._refresh(RETRY_SECONDS)
            found = self._find(kid, algorithm)
        if found is None:
            raise TokenError("The token's key is not known.")
        return found.key

    def _find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        listed = (
            self._keys.get(kid, [])
            if kid is not None
            else [key for keys in self._keys.values() for key in keys]
        )
        fitting = [key for key in listed if key.key_type == ALGORITHMS[algorithm]]
        return fitting[0] if len(fitting) == 1 else None

    def _is_older_than(self, seconds: int) -> bool:
        return self._asked_us is None or self._clock.now_us() - self._asked_us >= seconds * 1_000_000

    async def _refresh(self, seconds: int) -> None:
        async with self._lock:
            if not self._is_older_than(seconds):  # another call fetched meanwhile
                return
            self._asked_us = self._clock.now_us()
            try:
                self._keys = await asyncio.to_thread(_fetch, self._url)
            except (httpx2.HTTPError, jwt.PyJWTError, msgspec.MsgspecError, ValueError, TypeError) as error:
                _log.warning("jwks_unavailable", url=self._url, error=str(error))


def _fetch(url: str) -> dict[str | None, list[jwt.PyJWK]]:
    with httpx2.stream("GET", url, timeout=TIMEOUT_SECONDS, follow_redirects=False) as response:
        response.raise_for_status()
        body = b""
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > LIMIT_BYTES:
                raise ValueError(f"the key set is larger than {LIMIT_BYTES} bytes")
    entries = msgspec.json.decode(body, type=_KeySet).keys
    found: dict[str | None, list[jwt.PyJWK]] = {}
    for entry in entries:
        key = _usable(entry)
        if key is not None:
            found.setdefault(key.key_id, []).append(key)
    return found


def _usable(entry: Any) -> jwt.PyJWK | None:
    """An entry as a key for signatures; None for those that are for something else, or that we do not speak."""
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry or "k" in entry:
        return None
    try:
        return jwt.PyJWK.from_dict(entry)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
