"""Intake on the queue in memory: what is refused early, and how many steps many events take."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from hub.adapters.memory_queue import MemoryQueue
from hub.errors import Refused
from hub.intake import BATCH_LIMIT, Intake, array_items
from hub.metrics import Metrics
from hub.model.ids import EventIds
from hub.model.types import MESSAGE, TypeVersion
from hub.ports import Append, Appended, KeyReused
from tests.support.clock import FakeClock

PARTITIONS = 4


class CountedQueue(MemoryQueue):
    """Counts the appends."""

    appends = 0

    async def append(self, events: Sequence[Append]) -> list[Appended | KeyReused]:
        self.appends += 1
        return await super().append(events)


class CountedTypes:
    """Knows the built-in type, and counts who asks."""

    asked = 0

    async def type(self, name: str) -> TypeVersion | None:
        self.asked += 1
        return MESSAGE if name == MESSAGE.name else None


class Desk:
    """An intake and what stands around it."""

    def __init__(self, clock: FakeClock, queue_limit: int = 1000) -> None:
        self.queue = CountedQueue(clock, PARTITIONS)
        self.types = CountedTypes()
        self.metrics = Metrics()
        self.intake = Intake(
            self.queue,
            self.types,
            EventIds(b"key"),
            clock,
            partitions=PARTITIONS,
            queue_limit=queue_limit,
            metrics=self.metrics.intake,
        )

    async def batch(self, events: list[Any]) -> list[dict[str, Any]]:
        body = msgspec.json.encode(events)
        return (await self.intake.publish_batch(body, False, "http:key", "key", None)).results


@pytest.fixture
def desk(clock: FakeClock) -> Desk:
    return Desk(clock)


@pytest.mark.req("R7")
async def test_a_batch_is_one_append_and_one_entry_per_partition(desk: Desk) -> None:
    results = await desk.batch([{"to": f"user-{number}", "title": "Hi"} for number in range(BATCH_LIMIT)])
    assert len({one["id"] for one in results}) == BATCH_LIMIT
    assert desk.queue.appends == 1
    assert desk.types.asked == 1
    entries = [stream.entries for stream in desk.queue._streams.values() if stream.entries]
    assert [len(one) for one in entries] == [1] * PARTITIONS


async def test_accepted_events_are_counted_by_source_and_refused_ones_are_not(desk: Desk) -> None:
    good, bad = {"to": "alice", "idempotency_key": "k"}, {"to": "alice", "type": "unheard.of"}
    await desk.batch([good, bad, good, {"to": "bob", "idempotency_key": "k"}])
    value = desk.metrics.registry.get_sample_value
    assert value("clarion_events_accepted_total", {"source": "http"}) == 2
    assert value("clarion_events_refused_total", {"source": "http", "code": "unknown_type"}) == 1


@pytest.mark.req("R31")
@pytest.mark.parametrize("count", [BATCH_LIMIT + 1, 3_000_000])
def test_an_array_is_refused_at_the_first_item_too_many(count: int) -> None:
    with pytest.raises(Refused) as refused:
        array_items(b"[" + b"1," * (count - 1) + b"nobody reads this" * (count > BATCH_LIMIT + 1) + b"1]")
    assert (refused.value.status, refused.value.code) == (413, "batch_too_large")


@pytest.mark.parametrize(
    ("body", "count"), [(b"[]", 0), (b"[null]", 1), (b" [1, {}]", 2), (b"[" + b"0," * 999 + b"0]", 1000)]
)
def test_an_array_is_cut_into_its_items(body: bytes, count: int) -> None:
    assert len(array_items(body)) == count


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[1", 400), (b"[1 2]", 400), (b"{}", 422), (b"7", 422), (b"[" * 5000, 400)],
)
def test_what_is_no_array_is_told(body: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        array_items(body)
    assert refused.value.status == status


@pytest.mark.req("R31")
async def test_what_waits_in_the_public_stream_fills_the_queue_but_not_for_who_empties_it(
    clock: FakeClock,
) -> None:
    desk = Desk(clock, queue_limit=2)
    for _ in range(2):
        desk.queue.add_ingest({b"event": b'{"to": "alice"}'})
    await desk.intake.watch_queue(count_ingest=False)
    await desk.batch([{"to": "alice"}])
    await desk.intake.watch_queue()
    with pytest.raises(Refused) as refused:
        await desk.batch([{"to": "alice"}])
    assert (refused.value.code, refused.value.retry_after_seconds) == ("queue_full", 5)
