"""Sessions of our own pages: a signed cookie that is no user token, as a user token is no session.

Two locks keep them apart: a key derived from the token secret, and an audience of their own. A session ends with the
token that opened it, and with every revocation of the user's tokens. Operators come in by one-time links.
"""

import hmac
import secrets
from typing import Any, Final

import jwt

from hub.errors import TokenError
from hub.keys import hash_secret
from hub.live.seam import Identity
from hub.model.vocabulary import is_id
from hub.ports import Clock, KeyStore
from hub.tokens import identity_of, verify_hs256

COOKIE: Final = "clarion_session"
AUDIENCE: Final = "clarion-session"
SESSION_SECONDS: Final = 12 * 3_600
LINK_SECONDS: Final = 15 * 60
OPERATOR: Final = "operator"


class Sessions:
    """Opens and checks sessions."""

    def __init__(
        self, token_secrets: tuple[bytes, ...], store: KeyStore, clock: Clock, *, secure: bool, path: str = ""
    ) -> None:
        self._secrets = tuple(hmac.digest(one, b"clarion session 1", "sha256") for one in token_secrets)
        self._store = store
        self._clock = clock
        self._secure = secure
        self._path = path or "/"

    def open(self, identity: Identity) -> tuple[str, int]:
        """A session's text for the cookie, and its seconds: until the identity ends, at most 12 h."""
        now_us = self._clock.now_us()
        seconds = SESSION_SECONDS
        if identity.expires_at_us is not None:
            seconds = max(1, min(seconds, (identity.expires_at_us - now_us) // 1_000_000))
        claims: dict[str, Any] = {
            "sub": identity.user_id,
            "aud": AUDIENCE,
            "iat": now_us / 1_000_000,
            "exp": now_us / 1_000_000 + seconds,
        }
        if identity.operator:
            claims["operator"] = True
        return jwt.encode(claims, self._secrets[0], algorithm="HS256"), seconds

    def verify(self, session: str) -> Identity:
        """Whose session it is. Raises `TokenExpired` or `TokenError`."""
        if len(session) > 4_096 or not session.isascii():
            raise TokenError("The session has not the form of one.")
        claims = verify_hs256(session, self._secrets)
        if claims.get("aud") != AUDIENCE:
            raise TokenError("This is not a session.")
        return identity_of(claims, self._clock.now_us(), claims.get("operator") is True)

    def cookie(self, session: str, seconds: int) -> str:
        """The Set-Cookie header that begins a session."""
        secure = "; Secure" if self._secure else ""
        return f"{COOKIE}={session}; Max-Age={seconds}; Path={self._path}; HttpOnly; SameSite=Lax{secure}"

    def end_cookie(self) -> str:
        """The Set-Cookie header that ends a session in the browser."""
        return self.cookie("", 0)

    async def create_link(self, subject: str = OPERATOR, seconds: int = LINK_SECONDS) -> str:
        """The secret of a one-time link that opens an operator's session."""
        if not is_id(subject):
            raise TokenError("An operator's name must have the form of an id.")
        secret = secrets.token_urlsafe(32)
        await self._store.add_login_link(
            hash_secret(secret), subject, self._clock.now_us() + seconds * 1_000_000
        )
        return secret

    async def redeem_link(self, secret: str) -> Identity:
        """The operator of a link, once. Raises `TokenError` when it is unknown, used or late."""
        now_us = self._clock.now_us()
        subject = (
            await self._store.redeem_login_link(hash_secret(secret), now_us) if len(secret) < 200 else None
        )
        if subject is None:
            raise TokenError("The link is unknown, used or too old; ask for a new one.")
        return Identity(subject, now_us + SESSION_SECONDS * 1_000_000, now_us, operator=True)
