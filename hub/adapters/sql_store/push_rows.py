"""Which users can be reached by push, inside somebody else's transaction: one statement, and none before the first.

A setting says whether anybody ever registered a browser or a device; it is read with the other settings.
"""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.bulk import Statement
from hub.adapters.sql_store.engine import Database
from hub.adapters.sql_store.tables import settings
from hub.model.users import User
from hub.model.vocabulary import Channel

HAS_PUSH: Final = "has_push"
_REACHABLE: Final = Statement(
    "SELECT id, EXISTS (SELECT 1 FROM push_subscriptions WHERE push_subscriptions.user_id = users.id),"
    " EXISTS (SELECT 1 FROM devices WHERE devices.user_id = users.id) FROM users WHERE id {given}"
)


async def note_push(db: Database, connection: AsyncConnection) -> None:
    """Say that somebody can be reached by push. Call it in the transaction that saves a subscription or a device."""
    await connection.execute(db.insert(settings).values(name=HAS_PUSH, value="1").on_conflict_do_nothing())


async def with_push(db: Database, connection: AsyncConnection, people: Mapping[str, User]) -> dict[str, User]:
    """The users, with the push channels by which each can be reached."""
    found = dict(people)
    for user_id, by_browser, by_device in await _REACHABLE.among(db, connection, people.keys()):
        channels = [Channel.WEB_PUSH] * bool(by_browser) + [Channel.MOBILE_PUSH] * bool(by_device)
        if channels:
            found[user_id] = replace(found[user_id], reachable=frozenset(channels))
    return found
