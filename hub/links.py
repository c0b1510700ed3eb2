"""Signed links: short tokens that say one thing and cannot be forged (unsubscribe, receipts, callbacks).

A token is bound to its purpose: one for unsubscribing opens nothing else, and none of them is a user's token, since
they are signed with keys of their own, derived from the deployment's secrets. The first signs, all verify.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import jwt

_ALGORITHM: Final = "HS256"


class SignedLinks:
    """Signs and reads tokens of one purpose, such as `unsubscribe`."""

    def __init__(self, secrets: Sequence[bytes], purpose: str) -> None:
        self._keys = [
            blake2b(purpose.encode(), key=_short(secret), digest_size=32).digest() for secret in secrets
        ]

    def sign(self, says: Mapping[str, Any]) -> str:
        """A token that says this. It does not expire: what it allows must be harmless for ever."""
        return jwt.encode(dict(says), self._keys[0], algorithm=_ALGORITHM)

    def read(self, token: str) -> dict[str, Any] | None:
        """What a token says; None when it is not one of ours for this purpose."""
        for key in self._keys:
            try:
                says: dict[str, Any] = jwt.decode(token, key, algorithms=[_ALGORITHM])
            except jwt.InvalidTokenError:
                continue
            return says
        return None


def _short(secret: bytes) -> bytes:
    return blake2b(secret, digest_size=32).digest()  # blake2b takes keys of at most 64 bytes
