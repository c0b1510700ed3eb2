"""User tokens: what is let in, and everything that is not."""

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hub.access import Access
from hub.errors import TokenError, TokenExpired
from hub.origins import OriginPolicy, PublicUrl
from hub.sessions import Sessions
from hub.tokens import Tokens
from tests.support.clock import FakeClock
from tests.support.key_store import DictStore

OLD = b"an old secret that has thirty-two bytes!"
NEW = b"a new secret that has sixty-four bytes, enough for other hashes too"

pytestmark = pytest.mark.req("R34")


def sign(claims: dict[str, Any], secret: bytes = NEW, algorithm: str = "HS256", **header: Any) -> str:
    return jwt.encode(claims, secret, algorithm=algorithm, headers=header or None)


def now(clock: FakeClock) -> int:
    return clock.now_us() // 1_000_000


@pytest.fixture
def tokens(clock: FakeClock) -> Tokens:
    return Tokens((NEW, OLD), clock)


async def test_the_first_secret_signs_and_all_verify(clock: FakeClock, tokens: Tokens) -> None:
    issued = tokens.issue("alice", 60)
    assert (await tokens.verify(issued)).user_id == "alice"
    assert (await Tokens((NEW,), clock).verify(issued)).user_id == "alice"
    with pytest.raises(TokenError):
        await Tokens((OLD,), clock).verify(issued)
    assert (await tokens.verify(sign({"sub": "bob", "exp": now(clock)}, OLD))).user_id == "bob"


async def test_a_token_lives_until_its_exp_and_a_leeway_of_60_seconds(
    clock: FakeClock, tokens: Tokens
) -> None:
    token = tokens.issue("alice", 10)
    clock.advance(69.9)
    assert (await tokens.verify(token)).user_id == "alice"
    clock.advance(0.1)
    with pytest.raises(TokenExpired):
        await tokens.verify(token)


@pytest.mark.req("R35")
async def test_an_unsigned_token_and_other_algorithms_are_refused(clock: FakeClock, tokens: Tokens) -> None:
    claims = {"sub": "alice", "exp": now(clock) + 60}
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).rstrip(b"=")
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    unsigned = (header + b"." + payload + b".").decode()
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    rs256 = jwt.encode(claims, private, algorithm="RS256")
    for token in (unsigned, unsigned.replace("none", "None"), sign(claims, algorithm="HS512"), rs256):
        with pytest.raises(TokenError):
            await tokens.verify(token)


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "alice"},
        {"exp": 4_000_000_000},
        {"sub": "", "exp": 4_000_000_000},
        {"sub": "a b", "exp": 4_000_000_000},
        {"sub": "alice\n", "exp": 4_000_000_000},
        {"sub": 7, "exp": 4_000_000_000},
        {"sub": "x" * 129, "exp": 4_000_000_000},
        {"sub": "alice", "exp": "4000000000"},
        {"sub": "alice", "exp": True},
        {"sub": "alice", "exp": 1e300},
        {"sub": "alice", "exp": -1},
        {"sub": "alice", "exp": 4_000_000_000, "nbf": 3_900_000_000},
        {"sub": "alice", "exp": 4_000_000_000, "iat": 3_900_000_000},
        {"sub": "alice", "exp": 4_000_000_000, "iat": "yesterday"},
    ],
)
async def test_claims_that_say_nothing_sound_are_refused(tokens: Tokens, claims: dict[str, Any]) -> None:
    for token in (sign(claims), sign(claims, kid="2026")):  # our own form, and one that a library reads
        with pytest.raises(TokenError):
            await tokens.verify(token)


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    "token",
    ["", "x", "a.b.c", "....", "\0", "ü.ü.ü", "e30.e30.", "x" * 10_000, "eyJhbGciOiJIUzI1NiJ9.e30.AAAA"],
)
async def test_what_is_no_token_is_refused(tokens: Tokens, token: str) -> None:
    with pytest.raises(TokenError):
        await tokens.verify(token)


@pytest.mark.req("R35")
async def test_every_character_of_a_token_counts(clock: FakeClock, tokens: Tokens) -> None:
    token = sign({"sub": "alice", "exp": now(clock) + 60})
    assert (await tokens.verify(token)).user_id == "alice"
    for place, character in enumerate(token):
        with pytest.raises(TokenError):
            await tokens.verify(token[:place] + ("A" if character != "A" else "B") + token[place + 1 :])
        with pytest.raises(TokenError):
            await tokens.verify(token[:place] + token[place + 1 :])
    for odd in (
        token + ".",
        "." + token,
        token + "=",
        token.replace(".", "..", 1),
        token[: token.rindex(".")],
    ):
        with pytest.raises(TokenError):
            await tokens.verify(odd)


@pytest.mark.req("R35")
async def test_a_header_may_say_more_and_is_then_read_as_the_standard_says(
    clock: FakeClock, tokens: Tokens
) -> None:
    claims = {"sub": "alice", "exp": now(clock) + 60}
    assert (await tokens.verify(sign(claims, kid="2026"))).user_id == "alice"
    assert (await tokens.verify(sign(claims, OLD, typ="at+jwt"))).user_id == "alice"
    with pytest.raises(TokenError):
        await tokens.verify(sign(claims, crit=["exp"]))
    with pytest.raises(TokenError):
        await tokens.verify(sign(claims, b"a secret of nobody that has thirty-two bytes", kid="2026"))


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    "payload", [b"[]", b"7", b"null", b'{"sub"', b"\xff", b'{"sub":"alice","exp":NaN}', b""]
)
async def test_a_signature_does_not_make_claims_of_anything(tokens: Tokens, payload: bytes) -> None:
    with pytest.raises(TokenError):
        await tokens.verify(jwt.PyJWS().encode(payload, NEW, algorithm="HS256"))


async def test_issuer_and_audience_must_fit_when_they_are_set(clock: FakeClock) -> None:
    strict = Tokens((NEW,), clock, issuer="https://id.example", audience="hub")
    good = {"sub": "alice", "exp": now(clock) + 60, "iss": "https://id.example", "aud": ["x", "hub"]}
    assert (await strict.verify(sign(good))).user_id == "alice"
    assert (await strict.verify(strict.issue("alice"))).user_id == "alice"
    for wrong in (
        {"iss": "https://evil.example"},
        {"aud": "other"},
        {"aud": ["hubs"]},
    ):
        with pytest.raises(TokenError):
            await strict.verify(sign({**good, **wrong}))
    for missing in ("iss", "aud"):
        with pytest.raises(TokenError):
            await strict.verify(sign({name: value for name, value in good.items() if name != missing}))


async def test_a_session_is_no_token_and_a_token_is_no_session(clock: FakeClock, tokens: Tokens) -> None:
    sessions = Sessions((NEW, OLD), DictStore(), clock, secure=True)  # type: ignore[arg-type]
    token = tokens.issue("alice", 600)
    session, seconds = sessions.open(await tokens.verify(token))
    assert 595 <= seconds <= 600
    assert sessions.verify(session).user_id == "alice"
    with pytest.raises(TokenError):
        await tokens.verify(session)
    with pytest.raises(TokenError):
        sessions.verify(token)
    forged = sign({"sub": "alice", "aud": "clarion-session", "exp": now(clock) + 60, "operator": True})
    with pytest.raises(TokenError):
        sessions.verify(forged)
    cookie = sessions.cookie(session, seconds)
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "; Secure" in cookie


async def test_a_session_ends_with_its_token_and_after_twelve_hours(clock: FakeClock, tokens: Tokens) -> None:
    sessions = Sessions((NEW,), DictStore(), clock, secure=False)  # type: ignore[arg-type]
    short, _ = sessions.open(await tokens.verify(tokens.issue("alice", 60)))
    long, seconds = sessions.open(await tokens.verify(tokens.issue("alice", 10 * 86_400)))
    assert seconds == 12 * 3600
    clock.advance(121)
    with pytest.raises(TokenExpired):
        sessions.verify(short)
    assert sessions.verify(long).user_id == "alice"


async def test_a_link_opens_one_operator_session_in_time(clock: FakeClock) -> None:
    sessions = Sessions((NEW,), DictStore(), clock, secure=False)  # type: ignore[arg-type]
    link = await sessions.create_link("ops", 60)
    identity = await sessions.redeem_link(link)
    assert (identity.user_id, identity.operator) == ("ops", True)
    session, _ = sessions.open(identity)
    assert sessions.verify(session).operator
    for wrong in (link, "unknown", "x" * 1000, ""):
        with pytest.raises(TokenError):
            await sessions.redeem_link(wrong)
    late = await sessions.create_link("ops", 60)
    clock.advance(61)
    with pytest.raises(TokenError):
        await sessions.redeem_link(late)


@pytest.mark.req("I16")
async def test_revoked_tokens_and_sessions_are_refused_and_later_ones_are_not(
    clock: FakeClock, tokens: Tokens
) -> None:
    store = DictStore()
    sessions = Sessions((NEW,), store, clock, secure=False)  # type: ignore[arg-type]
    origins = OriginPolicy(PublicUrl.parse("http://localhost"), (), any_loopback=True)
    access = Access(tokens, sessions, store, origins)  # type: ignore[arg-type]
    token = tokens.issue("alice")
    without_iat = sign({"sub": "alice", "exp": now(clock) + 600})
    session, _ = sessions.open(await access.authenticate(token))
    assert (await access.authenticate(without_iat)).user_id == "alice"
    clock.advance(0.2)
    store.revoke("alice", clock.now_us())
    clock.advance(0.2)
    for revoked in (token, without_iat):
        with pytest.raises(TokenError):
            await access.authenticate(revoked)
    with pytest.raises(TokenError):
        await access.authenticate_session(session)
    assert (await access.authenticate(tokens.issue("alice"))).user_id == "alice"
    assert (await access.authenticate(tokens.issue("bob"))).user_id == "bob"


@pytest.mark.req("R35")
async def test_a_public_key_does_not_verify_as_a_shared_secret(clock: FakeClock) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    payload = base64.urlsafe_b64encode(json.dumps({"sub": "alice", "exp": now(clock) + 60}).encode()).rstrip(
        b"="
    )
    import hmac

    signature = base64.urlsafe_b64encode(hmac.digest(public, header + b"." + payload, "sha256")).rstrip(b"=")
    confused = b".".join([header, payload, signature]).decode()
    with pytest.raises(TokenError):
        await Tokens((NEW,), clock).verify(confused)
