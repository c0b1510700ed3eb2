"""Targets that do not exist any more, within the transaction of the attempt that found out."""

from collections.abc import Sequence

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Database
from hub.adapters.sql_store.suppressions import suppress_rows
from hub.adapters.sql_store.tables import devices, push_subscriptions
from hub.model.vocabulary import Channel
from hub.ports import End, Suppression

_REASONS = {"stop": "stop"}  # of a provider's codes; everything else that ends an address is a bounce


async def take_out(db: Database, connection: AsyncConnection, ends: Sequence[End]) -> None:
    """Suppress addresses; forget subscriptions and devices."""
    gone = [(end, target) for end in ends for target in end.gone]
    if not gone:
        return
    addresses = (Channel.EMAIL, Channel.SMS)
    await suppress_rows(
        db,
        connection,
        [
            Suppression(
                end.delivery.channel,
                target.address,
                _REASONS.get(end.move.reason, "bounce"),
                end.detail,
                end.at_us,
            )
            for end, target in gone
            if end.delivery.channel in addresses
        ],
    )
    for channel, table in ((Channel.WEB_PUSH, push_subscriptions), (Channel.MOBILE_PUSH, devices)):
        if ids := {target.id for end, target in gone if end.delivery.channel is channel}:
            await connection.execute(delete(table).where(db.among(table.c.id, ids)))
