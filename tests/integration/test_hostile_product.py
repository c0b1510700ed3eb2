"""Careless backends: what one of them sends takes neither the others' time nor the node's memory."""

import asyncio
import json
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest

from hub.adapters.memory_queue import MemoryQueue
from hub.adapters.sql_store import memory_store
from hub.announcements import Retractions
from hub.api.routing import check_media_type
from hub.config import load_settings
from hub.counting import Counts
from hub.errors import Refused
from hub.events import Events
from hub.inbox import Inbox
from hub.intake import BATCH_LIMIT, first_lines, split_batch
from hub.model.ids import EventIds
from hub.model.notifications import Broadcast
from hub.ports import Committed, IngestEntry, RejectedEntry
from hub.wiring import ingest_of, memory_core
from tests.support.clock import FakeClock

pytestmark = pytest.mark.req("R35")

MEBI = 1024 * 1024


@pytest.mark.req("I14")
@pytest.mark.parametrize("body", [b"1\n" * 4 * MEBI, b"{}\r\n" * 2 * MEBI], ids=["numbers", "objects"])
def test_a_batch_of_millions_of_lines_is_not_cut_into_millions(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Refused) as refused:
            split_batch(body, True)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.code == "batch_too_large"
    assert peak_bytes < 4 * MEBI  # cutting all of them takes hundreds of megabytes


@pytest.mark.req("I14")
@pytest.mark.parametrize("body", [b"\n" * 8 * MEBI, b" " * 8 * MEBI, b" \r\n" * 2 * MEBI])
def test_a_batch_of_nothing_is_empty(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        split_batch(body, True)
    assert refused.value.code == "empty_batch"


def test_lines_are_those_that_are_not_blank() -> None:
    lines = [bytes(line) for line in first_lines(b'\n  {"a": 1} \r\n\r\n\t\n{"b":\t2}', BATCH_LIMIT)]
    assert [json.loads(line) for line in lines] == [{"a": 1}, {"b": 2}]
    assert len(split_batch(b"{}\n" * BATCH_LIMIT, True)) == BATCH_LIMIT


class CountingQueue(MemoryQueue):
    """A queue that counts how often rejected entries are written: each time waits for a disk."""

    trips = 0

    async def reject_ingest(self, rejected: Sequence[RejectedEntry]) -> None:
        self.trips += 1
        await super().reject_ingest(rejected)


@pytest.mark.req("I14")
async def test_garbage_in_the_stream_does_not_hold_up_the_events_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hub.wiring.MemoryQueue", CountingQueue)
    settings = load_settings(
        api_key="test-key-0123456789abcdef", token_secret="0123456789abcdef0123456789abcdef"
    )
    core = await memory_core(settings, FakeClock())
    try:
        written: list[int] = []
        write_log = core.store.write_log

        async def counting(entries: Any) -> None:
            written.append(len(entries))
            await write_log(entries)

        monkeypatch.setattr(core.store, "write_log", counting)
        entries = [IngestEntry(f"1-{n}", {b"event": b"garbage %d" % n}) for n in range(200)]
        await ingest_of(core).take(entries)
        queue = core.queue
        assert isinstance(queue, CountingQueue)
        assert queue.trips == 1
        assert [entry.entry_id for entry in queue.rejected] == [entry.entry_id for entry in entries]
        assert written == [200]
    finally:
        await core.store.close()


@pytest.mark.req("I14")
async def test_replacing_the_notifications_of_many_does_not_hold_up_a_partition() -> None:
    counted: list[str] = []

    async def slowly(user_id: str) -> Counts:
        counted.append(user_id)
        await asyncio.sleep(0.02)
        return Counts(1, 1)

    store = await memory_store()
    try:
        committed = Committed({f"user-{n}": [f"ntf_{n}"] for n in range(500)}, frozenset())
        told = await Retractions(store, slowly).publications(committed)
    finally:
        await store.close()
    assert [one.channel for one in told] == [f"#user-{n}" for n in range(500)]
    messages = [json.loads(one.payload) for one in told]
    assert [message["ids"] for message in messages] == [[f"ntf_{n}"] for n in range(500)]
    assert counted[0] == "user-0"
    assert len(counted) < 100  # the time for counting was over
    assert (messages[0]["unread"], messages[-1]["unread"]) == (1, None)


@pytest.mark.req("I14")
async def test_retracting_what_many_got_takes_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(
        api_key="test-key-0123456789abcdef", token_secret="0123456789abcdef0123456789abcdef"
    )
    clock = FakeClock()
    core = await memory_core(settings, clock)
    inbox = Inbox(core.store, core.bus, clock, "UTC")
    ids = EventIds(b"x" * 32)
    try:
        shown = {f"user-{n}": [f"ntf_{n}"] for n in range(500)}

        async def retract(event_id: str, now_us: int) -> tuple[dict[str, list[str]], list[Broadcast]]:
            return shown, []

        counted: list[str] = []

        async def slowly(user_id: str) -> Counts:
            counted.append(user_id)
            await asyncio.sleep(0.02)
            return Counts(1, 1)

        published: list[Any] = []

        async def publish(publications: Any) -> None:
            published.extend(publications)

        monkeypatch.setattr(core.store, "retract", retract)
        monkeypatch.setattr(core.bus, "publish", publish)
        monkeypatch.setattr(inbox, "counts", slowly)
        events = Events(store=core.store, queue=core.queue, bus=core.bus, ids=ids, clock=clock, inbox=inbox)
        answer = await events.retract(ids.new(clock.now_us(), b"y" * 10), "key")
        assert len(counted) < 100  # the time for counting was over
    finally:
        await core.store.close()
    assert answer["status"] == "retracted"
    told = [one for one in published if one.channel.startswith("#")]
    assert [one.channel for one in told] == [f"#{user_id}" for user_id in shown]
    assert json.loads(told[0].payload)["unread"] == 1
    assert json.loads(told[-1].payload)["unread"] is None


def test_a_compressed_body_is_named_as_such() -> None:
    for coding in (b"gzip", b"br", b"GZIP, identity"):
        with pytest.raises(Refused, match="compressed"):
            check_media_type("event", {b"content-encoding": coding, b"content-type": b"application/json"})
    check_media_type("event", {b"content-encoding": b"identity", b"content-type": b"application/json"})
