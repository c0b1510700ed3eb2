"""Tokens of an identity provider: its keys are fetched, kept, and looked for again when an unknown one is named."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from hub.errors import TokenError
from hub.jwks import Jwks
from hub.tokens import Tokens
from tests.support.clock import FakeClock

pytestmark = pytest.mark.req("R34")
SECRET = b"a secret of at least thirty-two bytes!!!"


class Provider:
    """A real HTTP server that publishes keys, counts who asks, and can be broken."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.asked = 0
        self.answer: bytes | None = None
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                body = provider.answer or json.dumps({"keys": provider.keys}).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def publish(self, algorithm: Any, public: Any, kid: str, **more: Any) -> None:
        self.keys.append({**json.loads(algorithm.to_jwk(public)), "kid": kid, **more})

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def provider() -> Iterator[Provider]:
    one = Provider()
    yield one
    one.close()


@pytest.fixture
def tokens(provider: Provider, clock: FakeClock) -> Tokens:
    return Tokens((SECRET,), clock, issuer="https://id", audience="hub", jwks=Jwks(provider.url, clock))


def claims(clock: FakeClock, **more: Any) -> dict[str, Any]:
    return {
        "sub": "alice",
        "exp": clock.now_us() // 1_000_000 + 60,
        "iss": "https://id",
        "aud": "hub",
        **more,
    }


async def test_rs256_es256_and_eddsa_are_verified(
    provider: Provider, tokens: Tokens, clock: FakeClock
) -> None:
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ec_key = ec.generate_private_key(ec.SECP256R1())
    ed_key = ed25519.Ed25519PrivateKey.generate()
    provider.publish(RSAAlgorithm, rsa_key.public_key(), "r", use="sig")
    provider.publish(ECAlgorithm, ec_key.public_key(), "e")
    provider.publish(OKPAlgorithm, ed_key.public_key(), "d")
    for key, algorithm, kid in ((rsa_key, "RS256", "r"), (ec_key, "ES256", "e"), (ed_key, "EdDSA", "d")):
        token = jwt.encode(claims(clock), key, algorithm=algorithm, headers={"kid": kid})
        assert (await tokens.verify(token)).user_id == "alice"
        for wrong in ({"aud": "shop"}, {"iss": "https://evil"}, {"exp": 1}):
            bad = jwt.encode(claims(clock, **wrong), key, algorithm=algorithm, headers={"kid": kid})
            with pytest.raises(TokenError):
                await tokens.verify(bad)
    assert provider.asked == 1


@pytest.mark.req("R35")
async def test_a_token_of_a_stranger_or_with_another_algorithm_is_refused(
    provider: Provider, tokens: Tokens, clock: FakeClock
) -> None:
    ours = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    provider.publish(RSAAlgorithm, ours.public_key(), "r")
    for token in (
        jwt.encode(claims(clock), stranger, algorithm="RS256", headers={"kid": "r"}),
        jwt.encode(claims(clock), ours, algorithm="RS512", headers={"kid": "r"}),
        jwt.encode(claims(clock), ours, algorithm="PS256", headers={"kid": "r"}),
    ):
        with pytest.raises(TokenError):
            await tokens.verify(token)


async def test_a_new_key_is_found_and_unknown_ones_make_it_ask_at_most_every_ten_seconds(
    provider: Provider, tokens: Tokens, clock: FakeClock
) -> None:
    old = ed25519.Ed25519PrivateKey.generate()
    new = ed25519.Ed25519PrivateKey.generate()
    provider.publish(OKPAlgorithm, old.public_key(), "old")
    await tokens.verify(jwt.encode(claims(clock), old, algorithm="EdDSA", headers={"kid": "old"}))
    rotated = jwt.encode(claims(clock), new, algorithm="EdDSA", headers={"kid": "new"})
    for _ in range(20):
        with pytest.raises(TokenError):
            await tokens.verify(rotated)
    assert provider.asked == 1
    provider.publish(OKPAlgorithm, new.public_key(), "new")
    clock.advance(10)
    assert (await tokens.verify(rotated)).user_id == "alice"
    assert provider.asked == 2


@pytest.mark.parametrize(
    "answer", [b"not json", b"[]", b'{"keys": 1}', b'{"keys": [1, {}, {"kty": "x"}]}', b" " * 300_000]
)
async def test_known_keys_go_on_working_while_the_provider_answers_nonsense(
    provider: Provider, tokens: Tokens, clock: FakeClock, answer: bytes
) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    provider.publish(OKPAlgorithm, key.public_key(), "k")
    await tokens.verify(jwt.encode(claims(clock), key, algorithm="EdDSA", headers={"kid": "k"}))
    provider.answer = answer
    clock.advance(700)
    token = jwt.encode(claims(clock), key, algorithm="EdDSA", headers={"kid": "k"})
    if answer.startswith(b'{"keys": [1'):  # an empty set is an answer: the key was withdrawn
        with pytest.raises(TokenError):
            await tokens.verify(token)
    else:
        assert (await tokens.verify(token)).user_id == "alice"
    assert provider.asked == 2


async def test_our_own_tokens_work_without_the_provider(clock: FakeClock) -> None:
    nobody = Jwks("http://127.0.0.1:9/jwks", clock)
    tokens = Tokens((SECRET,), clock, issuer="https://id", audience="hub", jwks=nobody)
    assert (await tokens.verify(tokens.issue("alice"))).user_id == "alice"
    key = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(TokenError):
        await tokens.verify(jwt.encode(claims(clock), key, algorithm="EdDSA", headers={"kid": "k"}))


async def test_private_and_shared_keys_in_a_key_set_are_not_used(
    provider: Provider, tokens: Tokens, clock: FakeClock
) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    provider.keys.append({**json.loads(OKPAlgorithm.to_jwk(key)), "kid": "private"})
    provider.keys.append({"kty": "oct", "kid": "shared", "k": "c2VjcmV0"})
    provider.publish(OKPAlgorithm, key.public_key(), "for-encryption", use="enc")
    for kid in ("private", "for-encryption"):
        with pytest.raises(TokenError):
            await tokens.verify(jwt.encode(claims(clock), key, algorithm="EdDSA", headers={"kid": kid}))
