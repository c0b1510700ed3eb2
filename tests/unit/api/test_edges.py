"""Small grammars and bounds at the edge: conditional headers, idempotency keys, queries, bodies, rates."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from msgspec import Struct

from hub.api import body as body_module
from hub.api.body import ClientGone, read_body
from hub.api.conditions import idempotency_key_of, if_match_of, media_type_of
from hub.api.models import Page
from hub.api.routing import read_query, refuse_faults
from hub.api.shell import request_id_of
from hub.errors import Refused
from hub.ratelimit import RateLimit, RateLimiter
from tests.support.clock import FakeClock

pytestmark = pytest.mark.req("R35")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, None),
        (b"order-1", "order-1"),
        (b'"order-1"', "order-1"),
        (b'"a \\"b\\" \\\\c"', 'a "b" \\c'),
        (b" order 1 ", "order 1"),
        (b"x" * 255, "x" * 255),
    ],
)
def test_an_idempotency_key_is_bare_or_quoted(given: bytes | None, found: str | None) -> None:
    assert idempotency_key_of(given) == found


@pytest.mark.parametrize(
    "given", [b"", b'""', b'"', b'"a', b'"a"b"', b"x" * 256, b"\xff", b"a\x00b", b'"a\\b"']
)
def test_what_is_no_idempotency_key_is_refused(given: bytes) -> None:
    with pytest.raises(Refused) as refused:
        idempotency_key_of(given)
    assert (refused.value.status, refused.value.code) == (400, "invalid_idempotency_key")


def test_if_match_names_versions() -> None:
    assert if_match_of(None) is None
    assert if_match_of(b"*") is None
    assert if_match_of(b'"3"') == frozenset({3})
    assert if_match_of(b'"3", "4"') == frozenset({3, 4})
    assert if_match_of(b'W/"3"') == frozenset()  # weak tags never match (RFC 9110 §13.1.1)
    assert if_match_of(b'"abc"') == frozenset()
    assert if_match_of(b'"9999999999999999999999"') == frozenset()
    for wrong in (b"3", b'"3', b"", b'"3" "4"'):
        with pytest.raises(Refused) as refused:
            if_match_of(wrong)
        assert refused.value.status == 400


def test_a_media_type_is_read_without_its_parameters() -> None:
    assert media_type_of(b"Application/JSON; charset=utf-8") == "application/json"
    assert media_type_of(None) == ""


class Asked(Struct, frozen=True, forbid_unknown_fields=True):
    limit: int = 5
    unread: bool = False


def test_queries_are_checked_and_unknown_parameters_left_alone() -> None:
    assert read_query(Asked, b"limit=7&unread=true&token=x") == Asked(7, True)
    assert read_query(Asked, b"unread=1") == Asked(5, True)
    for raw, pointer in (
        (b"limit=x", "/limit"),
        (b"limit=", "/limit"),
        (b"unread=maybe", "/unread"),
        (b"unread=%00", "/unread"),
    ):
        with pytest.raises(Refused) as refused:
            read_query(Asked, raw)
        assert refused.value.status == 422
        assert refused.value.errors[0].pointer == pointer
    for raw in (b"limit=0", b"limit=1001", b"limit=-1"):
        with pytest.raises(Refused):
            read_query(Page, raw)
    for raw in (b"\xff=1", b"limit=%ff", b"&".join([b"a=1"] * 200)):
        with pytest.raises(Refused) as refused:
            read_query(Asked, raw)
        assert refused.value.status == 400


def test_nul_characters_are_found_where_they_stand() -> None:
    refuse_faults(b'{"a": "\\\\u0000 is no NUL"}')
    for raw, pointer in ((b'{"a": ["x", "\\u0000"]}', "/a/1"), (b'{"a/b": {"c": "\\u0000"}}', "/a~1b/c")):
        with pytest.raises(Refused) as refused:
            refuse_faults(raw)
        assert refused.value.errors[0].pointer == pointer


def test_a_request_id_is_taken_when_it_is_harmless() -> None:
    assert request_id_of(b"abc-1.2_3") == "abc-1.2_3"
    for given in (None, b"", b"a b", b"a\r\nb", b"x" * 129, b"\xff"):
        assert request_id_of(given).startswith("req_")


# ---------------------------------------------------------------- bodies


class Upload:
    """An ASGI `receive` that plays chunks, and counts how many were taken."""

    def __init__(self, chunks: Iterable[bytes | None]) -> None:
        self.chunks = list(chunks)
        self.taken = 0

    async def __call__(self) -> dict[str, Any]:
        if self.taken == len(self.chunks):
            await asyncio.Event().wait()
        chunk = self.chunks[self.taken]
        self.taken += 1
        if chunk is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": self.taken < len(self.chunks)}


async def test_a_body_is_read_whole_up_to_its_limit() -> None:
    assert await read_body(Upload([b"ab", b"", b"cd"]), {}, 4, "request_too_large") == b"abcd"


async def test_beyond_the_limit_nothing_more_is_read() -> None:
    upload = Upload([b"x" * 10] * 100)
    with pytest.raises(Refused) as refused:
        await read_body(upload, {}, 25, "event_too_large")
    assert (refused.value.status, refused.value.code, upload.taken) == (413, "event_too_large", 3)
    announced = Upload([b"x"])
    with pytest.raises(Refused):
        await read_body(announced, {b"content-length": b"26"}, 25, "event_too_large")
    assert announced.taken == 0


async def test_a_body_that_does_not_come_ends_in_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        async def __call__(self) -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(body_module, "CHUNK_TIMEOUT_SECONDS", 0.01)
    with pytest.raises(Refused) as refused:
        await read_body(Endless(), {}, 25, "request_too_large")
    assert refused.value.status == 400


async def test_a_client_that_goes_away_is_not_answered() -> None:
    with pytest.raises(ClientGone):
        await read_body(Upload([b"x", None, b""]), {}, 25, "request_too_large")


# ---------------------------------------------------------------- rates


def calls(limiter: RateLimiter, user_id: str, count: int) -> int:
    """How many of so many calls pass."""
    passed = 0
    for _ in range(count):
        try:
            limiter.check(user_id)
        except Refused:
            continue
        else:
            passed += 1
    return passed


def test_each_user_has_a_bucket_that_fills_again(clock: FakeClock) -> None:
    limiter = RateLimiter(RateLimit(60, 60), clock)
    assert calls(limiter, "alice", 100) == 60
    assert calls(limiter, "bob", 100) == 60
    clock.advance(10)
    assert calls(limiter, "alice", 100) == 10
    clock.advance(3600)
    assert calls(limiter, "alice", 100) == 60


def test_retry_after_says_when_one_more_call_passes(clock: FakeClock) -> None:
    limiter = RateLimiter(RateLimit(1, 30), clock)
    limiter.check("alice")
    with pytest.raises(Refused) as refused:
        limiter.check("alice")
    assert refused.value.retry_after_seconds == 30
    clock.advance(30)
    limiter.check("alice")


def test_without_a_limit_all_calls_pass(clock: FakeClock) -> None:
    assert calls(RateLimiter(None, clock), "alice", 10_000) == 10_000


@pytest.mark.req("I14")
def test_buckets_are_bounded(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.ratelimit.MAX_BUCKETS", 10)
    limiter = RateLimiter(RateLimit(1, 60), clock)
    for index in range(1000):
        limiter.check(f"user-{index}")
    assert len(limiter._buckets) == 10
