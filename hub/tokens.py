"""User tokens: JWTs that say who a user is. Exactly HS256 with our secrets, or RS256/ES256/EdDSA with a JWKS.

The algorithm decides which keys are tried, never the token: `none`, HS256 against a public key and every other
algorithm are refused. Every refusal is a `TokenError` that tells the caller nothing about its reason.
"""

import hmac
from base64 import urlsafe_b64decode
from binascii import b2a_base64
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import jwt
import msgspec

from hub.errors import TokenError, TokenExpired
from hub.jwks import ALGORITHMS, Jwks
from hub.live.seam import Identity
from hub.model.vocabulary import is_id
from hub.ports import Clock

_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")  # RFC 4648 §5

LEEWAY_US: Final = 60 * 1_000_000
MAX_TOKEN_CHARACTERS: Final = 8_192
TOKEN_SECONDS: Final = 3_600
# Moments are checked against our own clock, and claims of other services' tokens only where the settings say so.
_OPTIONS: Final[Any] = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
    "require": ["exp", "sub"],
}


class Tokens:
    """Signs and verifies user tokens."""

    def __init__(
        self,
        secrets: tuple[bytes, ...],
        clock: Clock,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        jwks: Jwks | None = None,
    ) -> None:
        self._secrets = secrets
        self._clock = clock
        self._issuer = issuer
        self._audience = audience
        self._jwks = jwks

    def issue(self, user_id: str, seconds: int = TOKEN_SECONDS) -> str:
        """A token for a user (command line, demo), signed by the first secret."""
        now_us = self._clock.now_us()
        claims: dict[str, Any] = {
            "sub": user_id,
            # With its fraction, so that a token made just after a revocation is not older than it.
            "iat": now_us / 1_000_000,
            "exp": now_us // 1_000_000 + seconds,
        }
        if self._issuer:
            claims["iss"] = self._issuer
        if self._audience:
            claims["aud"] = self._audience
        return jwt.encode(claims, self._secrets[0], algorithm="HS256")

    async def verify(self, token: str) -> Identity:
        """Who the token says its bearer is. Raises `TokenExpired` or `TokenError`."""
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            raise TokenError("The token has not the form of one.")
        if _is_plain_hs256(token.partition(".")[0]):
            claims = verify_hs256(token, self._secrets)
            self._check_claims(claims)
            return identity_of(claims, self._clock.now_us())
        return await self._verify_any(token)

    async def _verify_any(self, token: str) -> Identity:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise TokenError("The token is not a JWT.") from None
        algorithm = header.get("alg")
        if algorithm == "HS256":
            claims = verify_hs256(token, self._secrets)
        elif self._jwks is not None and algorithm in ALGORITHMS:
            claims = _decode(token, await self._jwks.key(header.get("kid"), algorithm), algorithm)
        else:
            raise TokenError("The token's algorithm is not accepted.")
        self._check_claims(claims)
        return identity_of(claims, self._clock.now_us())

    def _check_claims(self, claims: Mapping[str, Any]) -> None:
        if self._issuer is not None and claims.get("iss") != self._issuer:
            raise TokenError("The token is another issuer's.")
        if self._audience is not None:
            given = claims.get("aud")
            if self._audience not in (given if isinstance(given, list) else [given]):
                raise TokenError("The token is for another audience.")


def verify_hs256(token: str, secrets: tuple[bytes, ...]) -> dict[str, Any]:
    """The claims of a token that one of the secrets signed. Raises `TokenError`."""
    signed, _, signature = token.rpartition(".")
    header, _, payload = signed.partition(".")
    if not _is_plain_hs256(header):
        return _verify_odd_hs256(token, secrets)
    message, given = signed.encode(), signature.encode()
    for secret in secrets:
        digest = b2a_base64(hmac.digest(secret, message, "sha256"), newline=False)
        if hmac.compare_digest(digest.rstrip(b"=").translate(_URL_SAFE), given):
            return _claims(payload)
    raise TokenError("The token's signature is not ours.")


@lru_cache(64)
def _is_plain_hs256(header: str) -> bool:
    """Whether a header says nothing but its algorithm: those of one issuer are all the same text."""
    try:
        said = msgspec.json.decode(urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return False
    return isinstance(said, dict) and said in ({"alg": "HS256"}, {"alg": "HS256", "typ": "JWT"})


def _claims(payload: str) -> dict[str, Any]:
    try:
        claims = msgspec.json.decode(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, msgspec.MsgspecError, RecursionError):
        claims = None
    if not isinstance(claims, dict) or "." in payload:
        raise TokenError("The token is not accepted.")
    return claims


def _verify_odd_hs256(token: str, secrets: tuple[bytes, ...]) -> dict[str, Any]:
    for secret in secrets:
        try:
            return _decode(token, secret, "HS256")
        except TokenError:
            continue
    raise TokenError("The token's signature is not ours.")


def _decode(token: str, key: Any, algorithm: str) -> dict[str, Any]:
    try:
        return jwt.decode(token, key, algorithms=[algorithm], options=_OPTIONS)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise TokenError("The token is not accepted.") from None


def identity_of(claims: Mapping[str, Any], now_us: int, operator: bool = False) -> Identity:
    """Claims with a good signature as an identity, their moments checked. Raises `TokenExpired` or `TokenError`."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not is_id(subject):
        raise TokenError("The token's `sub` is not a user id.")
    expires_us = _moment(claims, "exp")
    if expires_us is None:
        raise TokenError("The token has no `exp`.")
    # A token without `iat` counts as old: after a revocation it is refused.
    issued_us = _moment(claims, "iat") or 0
    not_before_us = _moment(claims, "nbf") or 0
    if max(issued_us, not_before_us) > now_us + LEEWAY_US:
        raise TokenError("The token is not valid yet.")
    if expires_us + LEEWAY_US <= now_us:
        raise TokenExpired("The token has expired.")
    return Identity(subject, expires_us, issued_us, operator)


def _moment(claims: Mapping[str, Any], name: str) -> int | None:
    """A NumericDate (RFC 7519 §2), which may have a fraction, in microseconds."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise TokenError(f"The token's `{name}` is not a moment.")
    return round(value * 1_000_000)
