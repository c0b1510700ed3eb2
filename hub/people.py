"""People: profiles, preferences, topics, export, erasure and revocation. Shared by HTTP, RPC and the pages.

Every change is in SQL before a call returns; the control message that follows on the bus is a hint which lets nodes
forget what they cached (they forget by themselves within a minute). A user needs no registration: reading the
preferences of a stranger gives the defaults.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from msgspec.structs import asdict, replace

from hub.catalog import Catalog
from hub.decoding import decode_json
from hub.errors import BusUnavailable, FieldError, Refused
from hub.model.addresses import profile_errors
from hub.model.preferences import GridRow, grid, merge_patch, preferences_errors
from hub.model.users import Preferences, Profile, Subscription, User
from hub.model.vocabulary import Channel, is_id
from hub.ports import Clock, LiveBus, UserMerge, UserStore
from hub.versions import IfMatch, expected_version

TOPIC_CHANGES_LIMIT: Final = 10_000
PATCH_ATTEMPTS: Final = 5

_log = structlog.get_logger(__name__)
_control = msgspec.json.Encoder()


class ProfileInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `PUT /v1/users/{id}`: what is left out is cleared. An `id` that was read may be sent back."""

    id: str | None = None
    name: str | None = None
    avatar: str | None = None
    email: str | None = None
    phone: str | None = None
    locale: str | None = None
    timezone: str | None = None
    attributes: dict[str, Any] = {}


_profile = msgspec.json.Decoder(ProfileInput)
_preferences = msgspec.json.Decoder(Preferences)


class MergeItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of `POST /v1/users/batch`: fields that are left out stay, null clears."""

    id: str
    name: str | msgspec.UnsetType | None = msgspec.UNSET
    avatar: str | msgspec.UnsetType | None = msgspec.UNSET
    email: str | msgspec.UnsetType | None = msgspec.UNSET
    phone: str | msgspec.UnsetType | None = msgspec.UNSET
    locale: str | msgspec.UnsetType | None = msgspec.UNSET
    timezone: str | msgspec.UnsetType | None = msgspec.UNSET
    attributes: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    preferences: Preferences | None = None
    topics: list[str] | None = None


class ShownPreferences(Preferences, frozen=True, omit_defaults=True):
    """Preferences as users get them: with the grid, which is only shown."""

    grid: tuple[GridRow, ...] = ()


class People:
    """The use cases about users."""

    def __init__(
        self,
        store: UserStore,
        bus: LiveBus,
        clock: Clock,
        definitions: Catalog,
        *,
        available: frozenset[Channel] = frozenset(),
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._definitions = definitions
        self._available = available

    # ------------------------------------------------------------ profiles

    async def list(self, after: str | None, limit: int) -> Sequence[Profile]:
        """Profiles by id."""
        return await self._store.list_users(after, limit)

    async def user(self, user_id: str, with_subscriptions: bool = False) -> User:
        """A user as decisions see them; a stranger is one with nothing set."""
        found = await self._store.load_users([user_id], with_subscriptions)
        return found.get(user_id) or User(Profile(user_id))

    async def profile(self, user_id: str) -> Profile:
        """A stored profile. Raises `Refused(404)`."""
        user = (await self._store.load_users([user_id])).get(user_id)
        if user is None or user.version == 0:
            raise unknown_user(user_id)
        return user.profile

    async def put_profile(self, user_id: str, given: ProfileInput) -> tuple[Profile, bool]:
        """Create or replace; tells whether it was created."""
        fields = asdict(given)
        if fields.pop("id") not in (None, user_id):
            detail = f"The address names {user_id!r}."
            raise Refused(422, "invalid_request", detail, [FieldError("/id", "invalid_value", detail)])
        refuse_bad_profile(fields)
        profile = Profile(user_id, **fields)
        created = await self._store.save_profile(profile)
        await self._tell_users([user_id])
        return profile, created

    async def patch_profile(self, user_id: str, patch: Mapping[str, Any], *, create: bool = False) -> Profile:
        """RFC 7396 on a profile: only what the patch names changes. Raises `Refused` (404, 422)."""
        current = (await self.user(user_id)).profile if create else await self.profile(user_id)
        merged = decode_json(_profile, msgspec.json.encode(merge_patch(asdict(current), patch)))
        after = asdict(merged)
        if after.pop("id") != user_id:
            detail = f"The address names {user_id!r}; an id cannot change."
            raise Refused(422, "invalid_request", detail, [FieldError("/id", "invalid_value", detail)])
        changed = {name: after[name] for name in patch if name != "id"}
        refuse_bad_profile(changed)
        await self._store.merge_users([UserMerge(user_id, changed)])
        await self._tell_users([user_id])
        return Profile(user_id, **after)

    async def merge(self, items: Sequence[MergeItem]) -> None:
        """Merge many users at once. Each was checked by `check_merge`."""
        await self._store.merge_users([as_merge(item) for item in items])
        await self._tell_users({item.id for item in items})

    async def export(self, user_id: str) -> dict[str, object]:
        """All that is kept about a user. Raises `Refused(404)`."""
        found = await self._store.export_user(user_id)
        if found is None:
            raise unknown_user(user_id)
        return found

    async def erase(self, user_id: str) -> None:
        """Forget a user, known or not; their connections close and their earlier tokens are refused."""
        now_us = self._clock.now_us()
        await self._store.erase_user(user_id, now_us)
        await self._tell({"kind": "revoked", "id": user_id, "before_us": now_us})
        await self._tell_users([user_id])

    async def revoke_tokens(self, user_id: str) -> None:
        """Close a user's connections and refuse the tokens that were issued before now."""
        now_us = self._clock.now_us()
        await self._store.revoke_tokens(user_id, now_us)
        await self._tell({"kind": "revoked", "id": user_id, "before_us": now_us})

    # ------------------------------------------------------------ preferences

    async def preferences(self, user_id: str) -> tuple[ShownPreferences, int]:
        """A user's preferences with their grid, and their version."""
        user = await self.user(user_id)
        return await self._shown(user), user.version

    async def put_preferences(
        self, user_id: str, document: Any, if_match: IfMatch = None
    ) -> tuple[ShownPreferences, int]:
        """Replace them. Raises `Refused`: 412 when `if_match` lacks the current version, 422 for bad ones."""
        current = await self.user(user_id)
        expected = expected_version(if_match, current.version)
        return await self._save(current, preferences_of(document), expected)

    async def patch_preferences(
        self, user_id: str, patch: Any, if_match: IfMatch = None
    ) -> tuple[ShownPreferences, int]:
        """RFC 7396 on preferences. Repeats by itself when somebody else changed them in between."""
        attempt = 0
        while True:
            current = await self.user(user_id)
            expected = expected_version(if_match, current.version)
            merged = merge_patch(msgspec.to_builtins(current.preferences), patch)
            try:
                return await self._save(current, preferences_of(merged), current.version)
            except Refused as refused:
                attempt += 1
                if refused.status != 412 or expected is not None or attempt == PATCH_ATTEMPTS:
                    raise

    async def _save(
        self, current: User, preferences: Preferences, if_version: int | None
    ) -> tuple[ShownPreferences, int]:
        user_id = current.profile.id
        version = await self._store.save_preferences(user_id, preferences, if_version)
        await self._tell_users([user_id])
        return await self._shown(replace(current, preferences=preferences)), version

    async def _shown(self, user: User) -> ShownPreferences:
        catalog = await self._definitions.recent()
        rows = grid(
            user.preferences,
            catalog.categories,
            catalog.types.values(),
            self._available - user.suppressed,
            user.profile.locale,
        )
        return ShownPreferences(**asdict(user.preferences), grid=tuple(rows))

    # ------------------------------------------------------------ topics

    async def topics(self, user_id: str) -> Sequence[str]:
        """The topics that a user follows now."""
        intervals: Sequence[Subscription] = await self._store.user_topics(user_id)
        return sorted({one.topic for one in intervals if one.until_seq is None})

    async def list_topics(self, after: str | None, limit: int) -> Sequence[tuple[str, int]]:
        """Topics by name, with their number of subscribers."""
        return await self._store.list_topics(after, limit)

    async def topic_users(self, topic: str, after: str | None, limit: int) -> Sequence[str]:
        """Subscribers by id."""
        return await self._store.topic_users(topic, after, limit)

    async def change_topic(self, topic: str, add: Sequence[str], remove: Sequence[str]) -> None:
        """Subscribe and unsubscribe users. Raises `Refused(422)`."""
        if len(add) + len(remove) > TOPIC_CHANGES_LIMIT:
            detail = f"At most {TOPIC_CHANGES_LIMIT} users can be named in a call."
            raise Refused(422, "invalid_request", detail, [FieldError("/add", "too_many", detail)])
        both = set(add) & set(remove)
        if both:
            detail = f"{min(both)!r} is both added and removed."
            raise Refused(422, "invalid_request", detail, [FieldError("/remove", "invalid_value", detail)])
        await self._store.change_topic(topic, list(dict.fromkeys(add)), list(dict.fromkeys(remove)))
        await self._tell_users({*add, *remove})

    async def delete_topic(self, topic: str) -> int:
        """End every subscription of a topic; returns how many there were."""
        users: list[str] = []
        after = None
        while page := await self._store.topic_users(topic, after, 1000):
            users += page
            after = page[-1]
        ended = await self._store.delete_topic(topic)
        await self._tell_users(users)
        return ended

    async def _tell_users(self, ids: Iterable[str]) -> None:
        """Let nodes forget what they cached of these users; many at a time."""
        for some in batched(list(ids), 500):
            await asyncio.gather(*(self._tell({"kind": "user", "id": one}) for one in some))

    async def _tell(self, message: Mapping[str, Any]) -> None:
        try:
            await self._bus.send_control(_control.encode(message))
        except BusUnavailable as error:  # nodes clear their caches when the bus comes back
            _log.warning("control_message_lost", kind=message["kind"], error=str(error))


def preferences_of(document: Any) -> Preferences:
    """A JSON value as preferences; the grid, which is only shown, may come back with it. Raises `Refused(422)`."""
    if isinstance(document, Mapping):
        document = {name: value for name, value in document.items() if name != "grid"}
    preferences = decode_json(_preferences, msgspec.json.encode(document))
    if errors := preferences_errors(preferences):
        raise Refused(422, "invalid_preferences", errors[0].detail, errors)
    return preferences


def batched(items: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    """Portions of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


def unknown_user(user_id: str) -> Refused:
    """404 for a user that is not stored."""
    return Refused(404, "not_found", f"The user {user_id!r} is not stored.")


def refuse_bad_profile(fields: Mapping[str, Any]) -> None:
    """Raise `Refused(422)` with every mistake in these fields."""
    errors = profile_errors(fields)
    if errors:
        raise Refused(422, "invalid_request", f"The profile cannot be stored: {errors[0].detail}", errors)


def check_merge(item: MergeItem) -> None:
    """Raise `Refused(422)` for a merge that cannot be stored."""
    errors = [] if is_id(item.id) else [FieldError("/id", "invalid_id", "This is not a user id.")]
    errors += profile_errors(as_merge(item).fields)
    for index, topic in enumerate(item.topics or []):
        if not is_id(topic):
            errors.append(FieldError(f"/topics/{index}", "invalid_id", "This is not a topic."))
    if errors:
        raise Refused(422, "invalid_request", f"The user cannot be stored: {errors[0].detail}", errors)


def as_merge(item: MergeItem) -> UserMerge:
    """A line of a batch as the store takes it."""
    fields = {name: value for name, value in asdict(item).items() if value is not msgspec.UNSET}
    for name in ("id", "preferences", "topics"):
        fields.pop(name)
    return UserMerge(item.id, fields, item.preferences, item.topics)
