"""Logs: structured, and no secret in any of them, whoever wrote the record."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from hub import logs
from hub.config import Settings, load_settings
from hub.logs import Redactor, configure_logging, get_logger

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLXdpdGgtbGV0dGVycw"
KEY = "clarion_" + "k" * 43
PASSWORD = "pa55-word-of-the-database"
SECRETS = (JWT, KEY, PASSWORD)


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture(params=["json", "text"])
def stream(request: pytest.FixtureRequest, restored_logging: None) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(settings(request.param), "node", stream)
    return stream


def settings(log_format: str) -> Settings:
    return load_settings(
        log_format=log_format, database_url=f"postgresql://clarion:{PASSWORD}@db/clarion", log_level="debug"
    )


def assert_clean(stream: io.StringIO, *wanted: str) -> str:
    text = stream.getvalue()
    for secret in SECRETS:
        assert secret not in text
        assert secret[10:] not in text
    for part in wanted:
        assert part in text
    return text


def test_json_records(restored_logging: None) -> None:
    stream = io.StringIO()
    configure_logging(settings("json"), "generator", stream)
    with structlog.contextvars.bound_contextvars(request_id="req-1"):
        get_logger("hub.test").info("batch stored", events=12, data=b"x", nested={"a": [1, None]})
    record = json.loads(stream.getvalue())
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "event": "batch stored", "events": 12, "data": "x", "nested": {"a": [1, None]}, "level": "info",
        "logger": "hub.test", "role": "generator", "request_id": "req-1",
    }  # fmt: skip


def test_format_follows_the_stream(restored_logging: None) -> None:
    stream = io.StringIO()
    configure_logging(load_settings(), "node", stream)
    get_logger("hub.test").warning("hello")
    assert json.loads(stream.getvalue())["event"] == "hello"
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    configure_logging(load_settings(), "node", stream)
    get_logger("hub.test").warning("hello")
    assert "hello" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_fields_and_texts_are_redacted(stream: io.StringIO) -> None:
    log = get_logger("hub.test")
    log.info("connected", token=JWT, api_key=KEY, user="alice", authorization=f"Bearer {KEY}")
    log.info(f"connected with Bearer {KEY} and {JWT}", idempotency_key="order-17")  # noqa: G004 - the careless way
    log.info("deep", request={"headers": [["Authorization", f"Bearer {JWT}"], ["Cookie", f"s={KEY}"]]})
    log.info("deep", body=f'{{"token": "{KEY}", "title": "hi"}}')
    log.info("database", url=f"postgresql://clarion:{PASSWORD}@db/clarion")
    assert_clean(stream, "alice", "order-17", "db/clarion")


def test_libraries_are_redacted(stream: io.StringIO) -> None:
    access = logging.getLogger("uvicorn.access")
    access.info(
        '%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", f"/v1/me/stream?token={JWT}&limit=5", "1.1", 200
    )
    access.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", "/dashboard?key=0123456789&x=1", "1.1", 200)
    logging.getLogger("arq").error("job failed: %r", {"token": KEY})
    text = assert_clean(stream, "limit=5", "/v1/me/stream", "x=1")
    assert "0123456789" not in text


def _fail() -> None:
    raise ConnectionError(f"cannot reach postgresql://clarion:{PASSWORD}@db with {JWT}")


def test_tracebacks_are_redacted(stream: io.StringIO) -> None:
    try:
        _fail()
    except ConnectionError:
        get_logger("hub.test").exception("database away", dsn=PASSWORD)
        logging.getLogger("sqlalchemy").exception("database away")
    assert_clean(stream, "ConnectionError", "Traceback")


def test_what_is_not_secret_stays() -> None:
    redactor = Redactor(("short", "a-known-secret"))
    for text in (
        "order.paid for alice in short time",
        "https://example.com/orders?limit=5&cursor=abc",
        "redis://localhost:6379/0",
        '{"code": "unknown_type", "pointer": "/type"}',
        "partition=3 key_count=7",
    ):
        assert redactor.text(text) == text
    assert redactor.text("has a-known-secret in it") == "has [redacted] in it"


_PIECES = [
    "?key=", "&CODE=", "token=", "jwt%3D", "Api_Key=", '"secret": "', "'password':'", "Bearer ", "basic ", "Cookie: ",
    "authorization: ", "postgresql://u:", "@db", JWT, "clarion_", "clk_" + "k" * 30, "abcdefgh", " ", "é", "\u017fecret=",
    '"', "=", "x",
]  # fmt: skip


@given(st.lists(st.sampled_from(_PIECES), max_size=8).map("".join))
def test_looking_for_words_first_hides_all_that_the_patterns_find(text: str) -> None:
    hidden = text
    for _, shape in logs._SHAPES:
        hidden = shape.sub(r"\g<keep>[redacted]", hidden)
    assert Redactor().text(text) == hidden


def test_odd_values_do_not_break_a_record(stream: io.StringIO) -> None:
    loop: list[object] = []
    loop.append(loop)

    class Odd:
        def __repr__(self) -> str:
            return f"Odd({JWT})"

    get_logger("hub.test").info("odd", loop=loop, odd=Odd(), broken="\udcff", mapping={1: Odd()})
    assert_clean(stream, "odd", "too deep")
