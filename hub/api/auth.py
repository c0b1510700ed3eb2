"""Who calls, and whether they may: API keys with scopes, user tokens, and session cookies on our own pages only.

Every missing, wrong, revoked or foreign credential gets the same 401; a good one without the scope gets a 403.
"""

from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING

from msgspec import Struct

from hub.access import OPERATOR_SCOPES, is_same_origin_call
from hub.api.problems import unauthorized
from hub.errors import Refused
from hub.live.seam import Identity
from hub.sessions import COOKIE

if TYPE_CHECKING:
    from hub.api.parts import Parts

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Caller(Struct, frozen=True):
    """Who sent a request: an API key (`key_id`), a user (`identity`), an operator (both) or nobody."""

    key_id: str = ""
    identity: Identity | None = None


NOBODY = Caller()


async def identify(
    parts: "Parts", access: tuple[str, ...], method: str, headers: Mapping[bytes, bytes]
) -> Caller:
    """The caller, when one of `access` lets them in. Raises `Refused` (401, 403) or `TokenError`."""
    if access == ("open",):
        return NOBODY
    bearer = bearer_of(headers)
    if "user" in access:
        if bearer is not None:
            return Caller(identity=await parts.access.authenticate(bearer))
        return Caller(identity=await session_of(parts, method, headers))
    if bearer is None:
        identity = await session_of(parts, method, headers)
        if not identity.operator:
            raise unauthorized()
        if not OPERATOR_SCOPES.intersection(access):
            raise Refused(403, "missing_scope", "An operator's session cannot do this; use an API key.")
        return Caller(f"operator:{identity.user_id}", identity)
    key = await parts.keys.find(bearer)
    if key is None:
        raise unauthorized()
    if not key.scopes.intersection(access):
        raise Refused(403, "missing_scope", f"The API key lacks the scope {' or '.join(access)!r}.")
    return Caller(key.id)


def bearer_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The credential of the Authorization header; None when there is no such header. Raises `Refused(401)`."""
    given = headers.get(b"authorization")
    if given is None:
        return None
    scheme, _, credential = given.decode("latin-1").partition(" ")
    credential = credential.strip()
    if scheme.lower() != "bearer" or not credential:
        raise unauthorized()
    return credential


async def session_of(parts: "Parts", method: str, headers: Mapping[bytes, bytes]) -> Identity:
    """The owner of the session cookie. Raises `Refused` (401, 403 from a foreign page) or `TokenError`."""
    session = cookie_of(headers)
    if session is None:
        raise unauthorized()
    if not is_same_origin_call(parts.access.origins, headers, method not in SAFE_METHODS):
        raise Refused(403, "cross_origin", "A session counts only on our own pages; send a token as Bearer.")
    return await parts.access.authenticate_session(session)


def cookie_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The session cookie's value."""
    given = headers.get(b"cookie")
    if given is None:
        return None
    try:
        found = SimpleCookie(given.decode("latin-1")).get(COOKIE)
    except CookieError:
        return None
    return found.value if found is not None and found.value else None
