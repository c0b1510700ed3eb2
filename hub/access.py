"""Who is calling: user tokens and sessions, checked against revocations. The one gate of HTTP, WebSocket and SSE.

A revocation counts from the moment it is in SQL: the user's row is read on every check, no cache stands before it.
Checks of connections that come together share a query.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from hub.errors import TokenError
from hub.live.seam import Identity
from hub.model.users import User
from hub.origins import OriginPolicy
from hub.ports import UserStore
from hub.sessions import Sessions
from hub.tokens import Tokens

ReadUser = Callable[[str], Awaitable[User | None]]
"""Reads a user's row by a query that begins after the call. Raises `StoreUnavailable`."""

OPERATOR_SCOPES: Final = frozenset({"publish", "users", "types", "read"})
"""What an operator's session may do on the API: all but API keys."""


class Access:
    """Authenticates users and operators; implements `hub.live.seam.Gate`."""

    def __init__(self, tokens: Tokens, sessions: Sessions, users: UserStore, origins: OriginPolicy) -> None:
        self.tokens = tokens
        self.sessions = sessions
        self.origins = origins
        self._users = users
        self._read: ReadUser = self._load

    def reading(self, read: ReadUser) -> "Access":
        """The same gate with another way to read users."""
        other = Access(self.tokens, self.sessions, self._users, self.origins)
        other._read = read
        return other

    async def authenticate(self, token: str) -> Identity:
        """The bearer of a user token. Raises `TokenExpired`, `TokenError`, `StoreUnavailable`."""
        return await self._not_revoked(await self.tokens.verify(token))

    async def authenticate_session(self, session: str) -> Identity:
        """The owner of a session. Raises `TokenExpired`, `TokenError`, `StoreUnavailable`."""
        return await self._not_revoked(self.sessions.verify(session))

    def origin_allowed(self, origin: str | None, host: str) -> bool:
        """Whether a page of this origin may connect; None is no browser page, and may."""
        return origin is None or self.origins.allows(origin, host)

    async def _not_revoked(self, identity: Identity) -> Identity:
        user = await self._read(identity.user_id)
        if user is not None:
            valid_from_us = max(user.tokens_valid_from_us, user.erased_at_us or 0)
            if identity.issued_at_us < valid_from_us:
                raise TokenError("The token was revoked.")
        return identity

    async def _load(self, user_id: str) -> User | None:
        return (await self._users.load_users([user_id])).get(user_id)


def is_same_origin_call(origins: OriginPolicy, headers: Mapping[bytes, bytes], unsafe: bool) -> bool:
    """Whether a request with a cookie comes from our own pages.

    Browsers send `Origin` with every request that changes something, and all current ones `Sec-Fetch-Site`. A request
    that changes something without both is refused: a cookie is for browsers.
    """
    origin = headers.get(b"origin")
    host = headers.get(b"host")
    if origin is not None:
        return origins.is_own(origin.decode("latin-1"), host.decode("latin-1") if host else None)
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site in (b"same-origin", b"none")
    return not unsafe
