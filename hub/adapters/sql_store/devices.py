"""Devices on SQL. That anybody has one at all is noted in the settings, so that others need not look in vain."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import case, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Part
from hub.adapters.sql_store.people_rows import add_users
from hub.adapters.sql_store.push_rows import note_push
from hub.adapters.sql_store.tables import devices
from hub.model.devices import Device


class Devices(Part):
    """`hub.ports.devices.DeviceStore` on SQL."""

    async def save_device(self, device: Device, limit: int) -> Device:
        """Keep a device (creating its user); returns it as it is kept."""
        return await self._db.write(self._save_device, device, limit)

    async def _save_device(self, connection: AsyncConnection, device: Device, limit: int) -> Device:
        await add_users(self._db, connection, [device.user_id])
        await note_push(self._db, connection)
        insert = self._db.insert(devices).values(
            id=device.id,
            user_id=device.user_id,
            token=device.token,
            platform=device.platform,
            created_at_us=device.created_at_us,
            used_at_us=device.used_at_us,
        )
        given = insert.excluded
        since = case((devices.c.user_id == given.user_id, devices.c.created_at_us), else_=given.created_at_us)
        changed = {name: given[name] for name in ("user_id", "token", "platform", "used_at_us")}
        saved = await connection.execute(
            insert.on_conflict_do_update(
                index_elements=["id"], set_={**changed, "created_at_us": since}
            ).returning(devices)
        )
        kept = device_of(saved.one())
        newest = (
            select(devices.c.id)
            .where(devices.c.user_id == device.user_id)
            .order_by((devices.c.id == device.id).desc(), devices.c.used_at_us.desc(), devices.c.id)
            .limit(limit)
        )
        await connection.execute(
            delete(devices).where(devices.c.user_id == device.user_id, devices.c.id.not_in(newest))
        )
        return kept

    async def devices_of(self, user_ids: Sequence[str]) -> dict[str, list[Device]]:
        """The devices of those users that have any, the last used first."""
        page = (
            select(devices)
            .where(self._db.among(devices.c.user_id, user_ids))
            .order_by(devices.c.user_id, devices.c.used_at_us.desc(), devices.c.id)
        )
        found: dict[str, list[Device]] = {}
        if not user_ids:
            return found
        async with self._db.read() as connection:
            for row in await connection.execute(page):
                found.setdefault(row.user_id, []).append(device_of(row))
        return found

    async def remove_device(self, user_id: str, device_id: str) -> bool:
        """Forget a device of this user. False: it is none of theirs."""

        async def work(connection: AsyncConnection) -> bool:
            removed = await connection.execute(
                delete(devices).where(devices.c.id == device_id, devices.c.user_id == user_id)
            )
            return bool(removed.rowcount)

        return await self._db.write(work)

    async def remove_targets(self, ids: Sequence[str]) -> int:
        """Forget devices whose tokens are dead, whoever has them; returns how many there were."""

        async def work(connection: AsyncConnection) -> int:
            removed = await connection.execute(delete(devices).where(self._db.among(devices.c.id, ids)))
            return int(removed.rowcount)

        return await self._db.write(work) if ids else 0


def device_of(row: Any) -> Device:
    """A device from its columns."""
    return Device(
        id=row.id,
        user_id=row.user_id,
        token=row.token,
        platform=row.platform,
        created_at_us=row.created_at_us,
        used_at_us=row.used_at_us,
    )
