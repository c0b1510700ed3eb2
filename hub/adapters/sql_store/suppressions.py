"""Suppressed addresses, and how they reach who decides.

Whether any address was ever suppressed stands in a settings row that readers load with others of theirs: as long as it
is not there nothing is asked. It is written in the transaction of the first one, and stays.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace
from sqlalchemy import delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.bulk import Statement
from hub.adapters.sql_store.engine import Database, Part
from hub.adapters.sql_store.journal import append_log
from hub.adapters.sql_store.tables import settings, suppressions
from hub.model.addresses import canonical_address
from hub.model.users import Profile, User
from hub.model.vocabulary import Channel
from hub.ports.rows import LogEntry
from hub.ports.suppressions import Address, Suppression

HAS_SUPPRESSIONS: Final = "has_suppressions"
BOUNCE: Final = "bounce"
# Both columns of the key, so that its index serves the question.
_AMONG: Final = Statement(
    "SELECT channel, address FROM suppressions WHERE channel IN ('email', 'sms') AND address {given}"
)


class Suppressions(Part):
    """`hub.ports.SuppressionStore` on SQL."""

    async def suppress(
        self, channel: Channel, address: str, reason: str, detail: str | None, at_us: int
    ) -> bool:
        """Take an address out. False: it was out already. Repeating it changes nothing."""
        return bool(await self.suppress_all([Suppression(channel, address, reason, detail, at_us)]))

    async def suppress_all(
        self, rows: Sequence[Suppression], log: Sequence[LogEntry] = ()
    ) -> list[Suppression]:
        """Take many out, with their log lines, in one transaction; returns those that were not out before."""
        return await self._db.write(self._suppress_all, rows, log)

    async def _suppress_all(
        self, connection: AsyncConnection, rows: Sequence[Suppression], log: Sequence[LogEntry]
    ) -> list[Suppression]:
        written = await suppress_rows(self._db, connection, rows)
        await append_log(self._db, connection, log)
        return written

    async def suppressions(
        self, after: Address | None, limit: int, channel: Channel | None = None
    ) -> list[Suppression]:
        """The list by channel and address."""
        columns = (suppressions.c.channel, suppressions.c.address)
        page = select(suppressions).order_by(*columns).limit(limit)
        if channel is not None:
            page = page.where(suppressions.c.channel == channel.value)
        if after is not None:
            page = page.where(tuple_(*columns) > tuple_(after[0].value, after[1]))
        async with self._db.read() as connection:
            return [_suppression_of(row) for row in await connection.execute(page)]

    async def unsuppress(self, channel: Channel, address: str) -> bool:
        """Use an address again. False: it was not out."""
        which = delete(suppressions).where(
            suppressions.c.channel == channel.value,
            suppressions.c.address == canonical_address(channel, address),
        )

        async def work(connection: AsyncConnection) -> bool:
            return (await connection.execute(which)).rowcount > 0

        return await self._db.write(work)

    async def suppressed_among(self, pairs: Collection[Address]) -> set[Address]:
        """Those of the addresses, as they were given, that are out: one statement, or none while none ever was."""
        if not pairs:
            return set()
        known = select(settings.c.value).where(settings.c.name == HAS_SUPPRESSIONS)
        async with self._db.read() as connection:
            if await connection.scalar(known) is None:
                return set()
            return await suppressed_pairs(self._db, connection, pairs)


async def suppress_rows(
    db: Database, connection: AsyncConnection, rows: Iterable[Suppression]
) -> list[Suppression]:
    """Take addresses out, within a transaction of the caller's; returns those that were not out before.

    In the order of their keys, so that two who write do not wait for each other in a circle.
    """
    canonical = [replace(row, address=canonical_address(row.channel, row.address)) for row in rows]
    written = []
    for row in sorted(canonical, key=lambda one: (one.channel.value, one.address)):
        values = {"reason": row.reason, "detail": row.detail, "at_us": row.at_us}
        insert = db.insert(suppressions).values(channel=row.channel.value, address=row.address, **values)
        changed = await connection.execute(
            insert.on_conflict_do_update(
                index_elements=["channel", "address"],
                set_=values,
                where=(suppressions.c.reason == BOUNCE) & (insert.excluded.reason != BOUNCE),
            )
        )
        if changed.rowcount > 0:
            written.append(row)
    if written:
        mark = db.insert(settings).values(name=HAS_SUPPRESSIONS, value="1")
        await connection.execute(mark.on_conflict_do_nothing())
    return written


async def suppressed_pairs(
    db: Database, connection: AsyncConnection, pairs: Collection[Address]
) -> set[Address]:
    """Those of the addresses that are out: one statement, for who knows that there are any."""
    by_key: dict[Address, list[Address]] = {}
    for channel, address in pairs:
        by_key.setdefault((channel, canonical_address(channel, address)), []).append((channel, address))
    rows = await _AMONG.among(db, connection, sorted({address for _, address in by_key}))
    out = (by_key.get((Channel(row[0]), row[1]), ()) for row in rows)
    return {pair for given in out for pair in given}


async def with_suppressed(
    db: Database, connection: AsyncConnection, people: Mapping[str, User]
) -> dict[str, User]:
    """The users with the channels on which their address is out. For who knows that there are any."""
    addresses = {pair for user in people.values() for pair in addresses_of(user.profile)}
    if not addresses:
        return dict(people)
    out = await suppressed_pairs(db, connection, addresses)
    return {id_: _marked(user, out) for id_, user in people.items()} if out else dict(people)


def addresses_of(profile: Profile) -> list[Address]:
    """The addresses of a profile that can be suppressed."""
    given = ((Channel.EMAIL, profile.email), (Channel.SMS, profile.phone))
    return [(channel, address) for channel, address in given if address is not None]


def _marked(user: User, out: set[Address]) -> User:
    channels = frozenset(pair[0] for pair in addresses_of(user.profile) if pair in out)
    return replace(user, suppressed=channels) if channels else user


def _suppression_of(row: Any) -> Suppression:
    return Suppression(Channel(row.channel), row.address, row.reason, row.detail, row.at_us)
