"""Signed links: short tokens that say one thing and cannot be forged (unsubscribe, receipts, callbacks).

A token is bound to its purpose: one for unsubscribing opens nothing else, and none of them is a user's token, since
they are signed with keys of their own, derived from the deployment's secrets. The first signs, all verify.
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import jwt
import msgspec

_ALGORITHM: Final = "HS256"
_HEADER: Final = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."  # {"alg":"HS256","typ":"JWT"}: RFC 7515 §3.1
_encode = msgspec.json.Encoder().encode


class SignedLinks:
    """Signs and reads tokens of one purpose, such as `unsubscribe`."""

    def __init__(self, secrets: Sequence[bytes], purpose: str) -> None:
        self._keys = [
            blake2b(purpose.encode(), key=_short(secret), digest_size=32).digest() for secret in secrets
        ]

    def sign(self, says: Mapping[str, Any]) -> str:
        """A token that says this. It does not expire: what it allows must be harmless for ever."""
        # Each message has one, and PyJWT looks at its key anew each time: four times as long.
        signed = _HEADER + _base64(_encode(says))
        return (signed + b"." + _base64(hmac.digest(self._keys[0], signed, "sha256"))).decode()

    def read(self, token: str) -> dict[str, Any] | None:
        """What a token says; None when it is not one of ours for this purpose."""
        for key in self._keys:
            try:
                says: dict[str, Any] = jwt.decode(token, key, algorithms=[_ALGORITHM])
            except jwt.InvalidTokenError:
                continue
            return says
        return None


def _base64(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


def _short(secret: bytes) -> bytes:
    return blake2b(secret, digest_size=32).digest()  # blake2b takes keys of at most 64 bytes
