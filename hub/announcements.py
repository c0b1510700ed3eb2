"""Announcements: what follows a commit on the live channels, in the order of the queue.

Made from what was planned and what the commit found out: what went between the two is left out. Rows carry their place
in the queue, so the bus refuses a repeat. Messages that take older notifications back are hints: a crash may lose one.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import perf_counter
from typing import Final, NamedTuple

from hub.counting import Counts
from hub.errors import StoreUnavailable
from hub.live.broadcasts import encode_broadcast, encode_broadcast_retracted
from hub.livelog import LINES_PER_MESSAGE, log_publication
from hub.model.deliveries import Delivery
from hub.model.expansion import Expansion
from hub.model.notifications import (
    Broadcast,
    LiveNotification,
    LiveRetracted,
    Notification,
    encode_live,
    wire_addressed,
)
from hub.model.vocabulary import BROADCASTS, personal_channel
from hub.ports import (
    BroadcastRow,
    Committed,
    LiveBus,
    LogEntry,
    Position,
    Publication,
    Published,
    Store,
    StoredSlice,
)

COUNTING_SECONDS: Final = (
    0.02  # for each batch: counting is a few queries for each user, and others wait meanwhile
)


class Announcement(NamedTuple):
    """A row to be shown live. `reports`: nodes tell when it reached its user, since a delivery waits for that."""

    position: Position
    row: Notification | Broadcast
    reports: bool = False


def awaits_reach(planned: Iterable[Delivery] | Iterable[Expansion]) -> bool:
    """Whether one of a notification's deliveries, or of a broadcast's expansions, is only for who was not reached."""
    return any(one.condition == "offline" for one in planned)


def announced_again(position: Position, stored: StoredSlice) -> list[Announcement]:
    """The announcements of a slice that was planned before."""
    # Its deliveries are not at hand. A report that none of them waits for changes nothing.
    found = [
        Announcement(position, row, any(reason.verdict == "hold" for reason in row.reasons))
        for row in stored.notifications
        if row.in_app
    ]
    if stored.broadcast is not None and stored.broadcast.in_app:
        reasons = stored.broadcast.reasons
        reports = any((reason.verdict, reason.rule) == ("hold", "offline") for reason in reasons)
        found.append(Announcement(position, stored.broadcast, reports))
    return found


def publications(announcements: Iterable[Announcement], committed: Committed) -> list[Publication]:
    """What is shown live after a commit."""
    result: list[Publication] = []
    for position, row, reports in announcements:
        if row.id in committed.left_out:
            continue  # retracted, replaced or erased between planning and commit
        header = f"kind=notification;at={position.ms * 1000}"  # the moment of the append, by Redis' clock
        if reports:
            header += f";reach={row.id}"
        if isinstance(row, Broadcast):
            result.append(Publication(BROADCASTS, encode_broadcast(row), position, header))
            continue
        payload = encode_live(LiveNotification(wire_addressed(row)))
        result.append(Publication(personal_channel(row.user_id), payload, position, header))
    return result


class Said(NamedTuple):
    """What a batch says live: its publications, in order, and its lines of the log."""

    publications: Sequence[Publication]
    log: Sequence[LogEntry]


def unheard(
    announcements: Iterable[Announcement], committed: Committed, published: Sequence[Published]
) -> list[tuple[str, str]]:
    """(user id, notification id) of what waits to be reached, while nobody listens for its user on any node.

    `published`: what became of `publications` of the same. Of repeats (offset 0) nobody knows who listened.
    """
    shown = [one for one in announcements if one.row.id not in committed.left_out]
    return [
        (row.user_id, row.id)
        for (_, row, reports), told in zip(shown, published, strict=True)
        if reports and told.offset and not told.listeners and isinstance(row, Notification)
    ]


async def say_together(bus: LiveBus, said: Sequence[Said]) -> list[Sequence[Published]]:
    """Publish what several batches say in one call, with few messages to those who watch the log.

    Returns to each what became of its publications.
    """
    together = [publication for one in said for publication in one.publications]
    lines: list[LogEntry] = []
    for one in said:
        if lines and len(lines) + len(one.log) > LINES_PER_MESSAGE:
            together.append(log_publication(lines))
            lines = []
        lines += one.log
    if lines:
        together.append(log_publication(lines))
    rest = await bus.publish(together) if together else []
    told: list[Sequence[Published]] = []
    for one in said:
        told.append(rest[: len(one.publications)])
        rest = rest[len(one.publications) :]
    return told


class Retractions:
    """Takes back, live, what a commit replaced. It follows the new notifications, so its counts include them."""

    def __init__(self, store: Store, counts: Callable[[str], Awaitable[Counts]]) -> None:
        self._store = store
        self._counts = counts

    async def publications(self, committed: Committed) -> list[Publication]:
        """The messages; none when nothing that was shown has been replaced."""
        replaced = {
            user_id: shown
            for user_id, ids in committed.collapsed.items()
            if (shown := [id_ for id_ in ids if id_ not in committed.left_out])
        }
        result = [
            Publication(BROADCASTS, encode_broadcast_retracted(row.broadcast))
            for row in await self._broadcasts(replaced.pop("", []))
        ]
        until = perf_counter() + COUNTING_SECONDS
        for number, (user_id, ids) in enumerate(replaced.items()):
            message = await self._message(user_id, ids, counted=not number or perf_counter() < until)
            result.append(
                Publication(personal_channel(user_id), encode_live(message), header="kind=retracted")
            )
        return result

    async def of_retracted(self, announcements: Iterable[Announcement]) -> list[Publication]:
        """Messages for what was retracted after its commit, and told before it was announced: it must go again."""
        rows = [row for _, row, _ in announcements]
        gone = await self._store.retracted(sorted({row.event_id for row in rows})) if rows else set()
        result = []
        for row in rows:
            if row.event_id not in gone:
                continue
            if isinstance(row, Broadcast):
                result.append(Publication(BROADCASTS, encode_broadcast_retracted(row)))
            else:
                message = await self._message(row.user_id, [row.id], counted=not result)
                channel = personal_channel(row.user_id)
                result.append(Publication(channel, encode_live(message), header="kind=retracted"))
        return result

    async def _broadcasts(self, ids: Sequence[str]) -> Sequence[BroadcastRow]:
        return (await self._store.find_notifications("", ids))[1] if ids else []

    async def _message(self, user_id: str, ids: Sequence[str], *, counted: bool) -> LiveRetracted:
        try:
            counts = await self._counts(user_id) if counted else None
        except StoreUnavailable:
            counts = None  # the message is worth more than its numbers
        unread, unseen = (counts.unread, counts.unseen) if counts else (None, None)
        return LiveRetracted(tuple(ids), unread, unseen)
