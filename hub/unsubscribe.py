"""Unsubscribing by the link in an e-mail (RFC 8058): no login, for one user and one category, as often as one likes.

Looking changes nothing, since mail programs and scanners open links. The change goes the way of every change of
preferences. For a user who is not there (any more) it is harmless: nothing is made of them.
"""

from typing import Any, Final, NamedTuple

from hub.catalog import Catalog
from hub.errors import Refused
from hub.links import SignedLinks
from hub.livelog import LiveLog
from hub.model.preferences import category_words
from hub.model.types import CategoryDefinition
from hub.model.users import User
from hub.model.vocabulary import Channel, is_id
from hub.people import PATCH_ATTEMPTS, People
from hub.ports import Clock, EventStore, LiveBus, LogEntry

PURPOSE: Final = "unsubscribe"
_TOKEN_LIMIT: Final = 1_000


class Wish(NamedTuple):
    """What a link stands for."""

    user_id: str
    category: str


class Shown(NamedTuple):
    """What a person is told: the category's title in their language, and whether its e-mails are off."""

    title: str
    is_off: bool


def unsubscribe_url(public_url: str, links: SignedLinks, wish: Wish) -> str:
    """The address for a message. `links`: of the purpose `PURPOSE`."""
    return f"{public_url}/unsubscribe/{links.sign({'user': wish.user_id, 'category': wish.category})}"


class Unsubscribing:
    """Reads links and does what they say."""

    def __init__(
        self,
        people: People,
        catalog: Catalog,
        store: EventStore,
        bus: LiveBus,
        links: SignedLinks,
        clock: Clock,
    ) -> None:
        self._people = people
        self._catalog = catalog
        self._store = store
        self._livelog = LiveLog(bus)
        self._links = links
        self._clock = clock

    async def look(self, token: str) -> Shown:
        """What the link is about. Raises `Refused(404)` for one that is not ours."""
        wish = self._read(token)
        user = await self._people.user(wish.user_id)
        return Shown(await self._title(wish.category, user), _is_off(user, wish.category))

    async def unsubscribe(self, token: str) -> Shown:
        """Switch e-mail off for the category. Raises `Refused(404)` for a link that is not ours."""
        wish = self._read(token)
        attempt = 0
        while True:
            user = await self._people.user(wish.user_id)
            if _is_off(user, wish.category) or user.version == 0:
                break  # done before; or nobody (any more), of whom nothing shall be kept
            patch: dict[str, Any] = {"categories": {wish.category: {Channel.EMAIL.value: False}}}
            try:
                await self._people.patch_preferences(wish.user_id, patch, frozenset({user.version}))
            except Refused as refused:
                attempt += 1
                if refused.status != 412 or attempt == PATCH_ATTEMPTS:
                    raise
            else:
                await self._log(wish)
                break
        return Shown(await self._title(wish.category, user), True)

    def _read(self, token: str) -> Wish:
        says = self._links.read(token) if len(token) <= _TOKEN_LIMIT and token.isascii() else None
        user_id, category = (says or {}).get("user"), (says or {}).get("category")
        if not (
            isinstance(user_id, str) and is_id(user_id) and isinstance(category, str) and is_id(category)
        ):
            raise Refused(404, "not_found", "This link to unsubscribe is not complete, or not one of ours.")
        return Wish(user_id, category)

    async def _title(self, category: str, user: User) -> str:
        known = (await self._catalog.recent()).categories.get(category, CategoryDefinition())
        return category_words(category, known, user.profile.locale)[0]

    async def _log(self, wish: Wish) -> None:
        line = LogEntry(
            self._clock.now_us(),
            "unsubscribed",
            user_id=wish.user_id,
            channel=Channel.EMAIL.value,
            category=wish.category,
            reason="link",
        )
        await self._store.write_log([line])
        await self._livelog.tell([line])


def _is_off(user: User, category: str) -> bool:
    """Whether the category, or its e-mail, is switched off: then there is nothing to do, and nothing to undo."""
    chosen = user.preferences.categories.get(category)
    return chosen is False or (isinstance(chosen, dict) and chosen.get(Channel.EMAIL) is False)
