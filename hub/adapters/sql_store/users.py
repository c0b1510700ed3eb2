"""Users: profiles, preferences, tokens, and what is loaded for decisions. A user needs no registration.

A version rises only when something changed, so that caches and ETags hold as long as they may.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Part
from hub.adapters.sql_store.people_rows import (
    ERASURE_KEY,
    add_users,
    change_users,
    changes,
    insert_users,
    settings_among,
    tombstones_among,
)
from hub.adapters.sql_store.push_rows import HAS_PUSH, with_push
from hub.adapters.sql_store.rows import PROFILE_TEXTS, attributes_of, document, preferences_of, profile_of
from hub.adapters.sql_store.suppressions import HAS_SUPPRESSIONS, with_suppressed
from hub.adapters.sql_store.tables import subscriptions, users
from hub.adapters.sql_store.topics import join_topics
from hub.errors import Refused
from hub.model.users import Preferences, Profile, Subscription, User
from hub.ports import UserMerge


class Users(Part):
    """The profile half of `hub.ports.UserStore` on SQL."""

    async def load_users(self, ids: Sequence[str], with_subscriptions: bool = False) -> dict[str, User]:
        """Known users by id; an erased one that is unknown since has a User with `erased_at_us` (version 0)."""
        return await self._db.read_apart(self._load_users, ids, with_subscriptions) if ids else {}

    async def _load_users(
        self, connection: AsyncConnection, ids: Sequence[str], with_subscriptions: bool
    ) -> dict[str, User]:
        rows = (await connection.execute(select(users).where(self._db.among(users.c.id, ids)))).all()
        facts = await settings_among(connection, ERASURE_KEY, HAS_SUPPRESSIONS, HAS_PUSH)
        key = facts.get(ERASURE_KEY)
        erased = await tombstones_among(self._db, connection, bytes.fromhex(key), ids) if key else {}
        intervals = await self._subscriptions(connection, ids) if with_subscriptions else {}
        loaded: dict[str, User] = {}
        for row in rows:
            erased_at_us, revoked_us = erased.get(row.id, (None, 0))
            loaded[row.id] = User(
                profile=profile_of(row),
                preferences=preferences_of(row.preferences),
                version=row.version,
                subscriptions=tuple(intervals.get(row.id, ())),
                tokens_valid_from_us=max(row.tokens_valid_from_us, revoked_us),
                erased_at_us=erased_at_us,
            )
        for user_id, (erased_at_us, revoked_us) in erased.items():
            if user_id not in loaded:
                loaded[user_id] = User(
                    Profile(user_id), tokens_valid_from_us=revoked_us, erased_at_us=erased_at_us
                )
        if HAS_SUPPRESSIONS in facts:
            loaded = await with_suppressed(self._db, connection, loaded)
        return await with_push(self._db, connection, loaded) if HAS_PUSH in facts else loaded

    async def _subscriptions(
        self, connection: AsyncConnection, ids: Sequence[str]
    ) -> dict[str, list[Subscription]]:
        rows = await connection.execute(
            select(subscriptions)
            .where(self._db.among(subscriptions.c.user_id, ids))
            .order_by(subscriptions.c.user_id, subscriptions.c.topic, subscriptions.c.from_seq)
        )
        found: dict[str, list[Subscription]] = {}
        for row in rows:
            found.setdefault(row.user_id, []).append(Subscription(row.topic, row.from_seq, row.until_seq))
        return found

    async def list_users(self, after: str | None, limit: int) -> list[Profile]:
        """Profiles by id."""
        page = select(users).order_by(users.c.id).limit(limit)
        if after is not None:
            page = page.where(users.c.id > after)
        async with self._db.read() as connection:
            return [profile_of(row) for row in await connection.execute(page)]

    async def save_profile(self, profile: Profile) -> bool:
        """Create or replace; True when it was created."""
        return await self._db.write(self._save_profile, profile)

    async def _save_profile(self, connection: AsyncConnection, profile: Profile) -> bool:
        fields = _columns(asdict(profile))
        found = await self._locked(connection, profile.id)
        if found is None:
            await insert_users(self._db, connection, {profile.id: {}})
            found = await self._locked(connection, profile.id)
            assert found is not None
            created = bool(found["version"] == 1)
            await connection.execute(update(users).where(users.c.id == profile.id).values(**fields))
            return created
        if changed := _profile_changes(found, fields):
            await change_users(connection, {profile.id: changed})
        return False

    async def merge_users(self, merges: Sequence[UserMerge]) -> None:
        """Upsert many: only the given fields change. All or nothing."""
        await self._db.write(self._merge_users, merges)

    async def _merge_users(self, connection: AsyncConnection, merges: Sequence[UserMerge]) -> None:
        ids = {merge.id for merge in merges}
        await add_users(self._db, connection, ids)
        found = await connection.execute(
            select(users).where(self._db.among(users.c.id, ids)).order_by(users.c.id).with_for_update()
        )
        rows = {row["id"]: dict(row) for row in found.mappings()}
        changed: dict[str, dict[str, Any]] = {}
        for merge in merges:  # a later one of the same user goes on from an earlier one
            fields = _profile_changes(rows[merge.id], _columns(merge.fields))
            before = preferences_of(rows[merge.id]["preferences"])
            if merge.preferences is not None and before != merge.preferences:
                fields["preferences"] = document(merge.preferences)
            if fields:
                rows[merge.id].update(fields)
                changed.setdefault(merge.id, {}).update(fields)
        await change_users(connection, changed)
        joins: dict[str, list[str]] = {}
        for merge in merges:
            for topic in merge.topics or ():
                joins.setdefault(topic, []).append(merge.id)
        await join_topics(self._db, connection, joins)

    async def _locked(self, connection: AsyncConnection, user_id: str) -> Mapping[str, Any] | None:
        found = await connection.execute(select(users).where(users.c.id == user_id).with_for_update())
        row = found.mappings().one_or_none()
        return None if row is None else dict(row)

    async def save_preferences(self, user_id: str, preferences: Preferences, if_version: int | None) -> int:
        """Replace them (creating the user); returns the new version. Raises `Refused(412)` when `if_version` is stale."""
        return await self._db.write(self._save_preferences, user_id, preferences, if_version)

    async def _save_preferences(
        self, connection: AsyncConnection, user_id: str, preferences: Preferences, if_version: int | None
    ) -> int:
        found = await self._locked(connection, user_id)
        version = 0 if found is None else int(found["version"])
        if if_version is not None and if_version != version:
            raise Refused(
                412, "stale_version", f"The preferences are at version {version}, not {if_version}."
            )
        if found is None:
            await insert_users(self._db, connection, {user_id: {}})
            # Somebody else may have created the user a moment ago; then this is a change like any other.
            found = await self._locked(connection, user_id)
            assert found is not None
            await connection.execute(
                update(users).where(users.c.id == user_id).values(preferences=document(preferences))
            )
            return int(found["version"])
        if preferences_of(found["preferences"]) == preferences:
            return version
        await change_users(connection, {user_id: {"preferences": document(preferences)}})
        return version + 1

    async def revoke_tokens(self, user_id: str, now_us: int) -> None:
        """Tokens issued before now are refused."""

        async def work(connection: AsyncConnection) -> None:
            await add_users(self._db, connection, [user_id])
            await connection.execute(
                update(users)
                .where(users.c.id == user_id, users.c.tokens_valid_from_us < now_us)
                .values(tokens_valid_from_us=now_us)
            )

        await self._db.write(work)

    async def timezones(self) -> list[str]:
        """The distinct zones of all users: one look into the index per zone, however many users there are."""
        zones: list[str] = []
        async with self._db.read() as connection:
            while True:
                following = select(func.min(users.c.timezone)).where(users.c.timezone.is_not(None))
                if zones:
                    following = following.where(users.c.timezone > zones[-1])
                zone = await connection.scalar(following)
                if zone is None:
                    return zones
                zones.append(zone)


def _columns(fields: Mapping[str, Any]) -> dict[str, Any]:
    columns = {name: fields[name] for name in PROFILE_TEXTS if name in fields}
    if "attributes" in fields:
        columns["attributes"] = document(fields["attributes"] or {})
    return columns


def _profile_changes(row: Mapping[str, Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    changed = changes(row, columns)
    if "attributes" in changed and attributes_of(changed["attributes"]) == attributes_of(row["attributes"]):
        del changed["attributes"]
    return changed
