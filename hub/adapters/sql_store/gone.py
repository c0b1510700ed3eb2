"""Targets that do not exist any more, within the transaction of the attempt that found out."""

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Database
from hub.adapters.sql_store.tables import devices, push_subscriptions, suppressions
from hub.model.outgoing import Target
from hub.model.vocabulary import Channel


async def take_out(
    db: Database, connection: AsyncConnection, channel: Channel, target: Target, reason: str
) -> None:
    """Suppress an address; forget a subscription or a device."""
    if channel in (Channel.EMAIL, Channel.SMS):
        row = {"channel": channel.value, "address": target.address, "reason": reason, "detail": None}
        await connection.execute(
            db.insert(suppressions).values(**row, at_us=db.now_us()).on_conflict_do_nothing()
        )
        return
    table = push_subscriptions if channel is Channel.WEB_PUSH else devices
    await connection.execute(delete(table).where(table.c.id == target.id))
