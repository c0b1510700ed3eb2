"""VAPID (RFC 8292): the signed header that tells a push service who sends, made once per push service for hours.

Signing takes as long as a quarter of an encryption, and a push service may remember a header that it has checked.
"""

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid.jwt import sign

from hub.ports import Clock
from hub.push_keys import application_server_key

LIFETIME_SECONDS: Final = 12 * 3600  # RFC 8292 §2: at most 24 hours; the rest is for clocks that differ
RENEWAL_SECONDS: Final = 6 * 3600  # before its end
ORIGINS: Final = 500  # how many headers are kept


class VapidHeaders:
    """The Authorization header for each push service. Printing it shows no key."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, subject: str, clock: Clock) -> None:
        self._key = key
        self._subject = subject
        self._clock = clock
        self._public = application_server_key(key)
        self._kept: dict[str, tuple[str, int]] = {}  # origin: header, last second of its use

    def header(self, origin: str) -> str:
        """`vapid t=<token>, k=<public key>` for a push service's origin (RFC 8292 §3)."""
        now = self._clock.now_us() // 1_000_000
        header, until = self._kept.get(origin, ("", 0))
        if (
            now < until <= now + LIFETIME_SECONDS
        ):  # a clock that was set back must not keep an old one for ever
            return header
        expires = now + LIFETIME_SECONDS
        token = sign({"aud": origin, "exp": expires, "sub": self._subject}, self._key)
        if len(self._kept) >= ORIGINS:
            self._kept.clear()
        header = f"vapid t={token}, k={self._public}"
        self._kept[origin] = (header, expires - RENEWAL_SECONDS)
        return header

    def forget(self, origin: str) -> None:
        """The push service did not accept it: make another one next time."""
        self._kept.pop(origin, None)
