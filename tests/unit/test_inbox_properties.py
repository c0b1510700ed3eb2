"""The inbox against a naive list: whatever is published, chosen, marked and taken back, both show the same.

A whole hub on the memory adapters is one side. The other keeps every row that ever was in a list and asks the rules
again, one by one (`tests/support/github_rules.py`), each time somebody looks.
"""

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hub.definitions import Definitions
from hub.inbox import MarkRequest
from hub.model.users import Preferences
from tests.support.clock import FakeClock
from tests.support.github_rules import allows, is_meant, named_users, ways
from tests.support.house import House, open_house

USERS = ("ann", "bob", "cat")
TOPICS = ("t1", "t2")
CATEGORIES = {"message": "messages", "news": "news", "hush": "quiet", "alarm": "news"}
DEFAULTS: dict[str, dict[str, bool]] = {"quiet": {"in_app": False}}
CRITICAL = {"alarm"}
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"archived": "only"},
    {"archived": "include"},
    {"unread": True},
    {"unread": True, "archived": "include"},
    {"category": "news"},
)

user = st.sampled_from(USERS)
topic = st.sampled_from(TOPICS)
category = st.sampled_from(sorted({*CATEGORIES.values()}))
audience = st.lists(
    st.one_of(user, user, topic.map(lambda name: {"topic": name}), st.just({"everyone": True})),
    min_size=1,
    max_size=3,
)
event = st.fixed_dictionaries(
    {"type": st.sampled_from(("message", "message", "news", "hush", "alarm")), "to": audience},
    optional={
        "actor": user,
        "include_actor": st.booleans(),
        "exclude": st.lists(user, max_size=1),
        "collapse_key": st.sampled_from(("k1", "k2")),
    },
)
few_users = st.lists(user, max_size=2, unique=True)
wishes = st.fixed_dictionaries(
    {},
    optional={
        "channels": st.fixed_dictionaries({"in_app": st.booleans()}),
        "categories": st.dictionaries(
            category, st.one_of(st.just(False), st.booleans().map(lambda on: {"in_app": on})), max_size=2
        ),
        "muted": st.fixed_dictionaries({}, optional={"actors": few_users, "topics": st.lists(topic, max_size=1)}),
        "only": st.fixed_dictionaries(
            {
                "categories": st.dictionaries(
                    category,
                    st.fixed_dictionaries({}, optional={"actors": few_users, "topics": st.lists(topic, max_size=1)}),
                    max_size=1,
                )
            }
        ),
    },
)  # fmt: skip


Shown = tuple[str, bool, bool, bool]  # title, seen, read, archived


@dataclass
class Row:
    """One notification: of one user, or a broadcast (`owner` None) with the ways by which it came to each user."""

    event: dict[str, Any]
    event_id: str
    owner: str | None
    came: dict[str, list[str | None]] = field(default_factory=dict)
    gone: bool = False
    marks: dict[str, set[str]] = field(default_factory=lambda: {user: set() for user in USERS})

    @property
    def title(self) -> str:
        return str(self.event["title"])

    @property
    def category(self) -> str:
        return CATEGORIES[self.event["type"]]


class InboxMachine(RuleBasedStateMachine):
    """Both sides, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.stack = AsyncExitStack()
        self.rows: list[Row] = []  # the oldest first
        self.event_ids: list[str] = []
        self.subscribed: dict[str, set[str]] = {name: set() for name in USERS}
        self.wishes: dict[str, dict[str, Any]] = {name: {} for name in USERS}
        self.steps = 0

    @initialize()
    def open(self) -> None:
        self.house: House = self.runner.run(self.stack.enter_async_context(open_house(FakeClock())))
        self.runner.run(self._define())

    async def _define(self) -> None:
        shown = {"in_app": {"when": "always"}}
        types = {
            name: {"category": drawer, "critical": name in CRITICAL, "channels": shown}
            for name, drawer in CATEGORIES.items()
            if name != "message"
        }
        categories = {
            name: {"title": name, "defaults": DEFAULTS.get(name, {})}
            for name in ("messages", "news", "quiet")
        }
        await self.house.hub.definitions.apply(Definitions(types, categories))
        for name, topic in (("ann", "t1"), ("bob", "t1"), ("bob", "t2")):
            await self.house.hub.people.change_topic(topic, add=[name], remove=[])
            self.subscribed[name].add(topic)

    def teardown(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()

    # ------------------------------------------------------------ the steps

    @rule(events=st.lists(event, min_size=1, max_size=5))
    def publish(self, events: list[dict[str, Any]]) -> None:
        for one in events:
            self._publish(one)

    def _publish(self, event: dict[str, Any]) -> None:
        event = {**event, "title": f"n{len(self.event_ids)}"}
        self.house.clock.advance(1)
        event_id = self.runner.run(self.house.say(**event))
        self.event_ids.append(event_id)
        for name in sorted(named_users(event)):
            if is_meant(event, name) and self._allowed(event, name, None):
                self._add(Row(event, event_id, name))
        if any(isinstance(entry, dict) for entry in event["to"]):
            others = set(USERS) - named_users(event)
            came = {one: ways(event, one, self.subscribed[one]) for one in others if is_meant(event, one)}
            self._add(Row(event, event_id, None, came))

    def _add(self, row: Row) -> None:
        key = row.event.get("collapse_key")
        for older in self.rows:
            if key is None or older.event.get("collapse_key") != key or older.owner != row.owner:
                continue
            if row.owner is not None or _audience(older.event) == _audience(row.event):
                older.gone = True
        self.rows.append(row)

    @rule(user=user, topic=topic, joins=st.booleans())
    def follow(self, user: str, topic: str, joins: bool) -> None:
        self._follow(user, topic, joins)

    def _follow(self, user: str, topic: str, joins: bool) -> None:
        add, remove = ([user], []) if joins else ([], [user])
        self.runner.run(self.house.hub.people.change_topic(topic, add=add, remove=remove))
        (self.subscribed[user].add if joins else self.subscribed[user].discard)(topic)

    @rule(user=user, topic=topic, leaves=st.booleans())
    def join_and_hear(self, user: str, topic: str, leaves: bool) -> None:
        """The very next one counts, and the one after leaving does not."""
        self._follow(user, topic, joins=not leaves)
        self._publish({"type": "message", "to": [{"topic": topic}]})

    @rule(user=user, wishes=wishes)
    def choose(self, user: str, wishes: dict[str, Any]) -> None:
        preferences = msgspec.convert(wishes, Preferences)
        self.runner.run(self.house.hub.store.save_preferences(user, preferences, None))
        self.wishes[user] = wishes

    @precondition(lambda self: self.rows)
    @rule(user=user, mark=st.sampled_from(("seen", "read", "unread", "archive", "unarchive")), data=st.data())
    def mark(self, user: str, mark: str, data: st.DataObject) -> None:
        """Also of rows that the user cannot see, and of none at all: those do not change."""
        self._mark(user, mark, data.draw(self._places(user)))

    @precondition(lambda self: self.rows)
    @rule(user=user, data=st.data())
    def keep_some_for_later(self, user: str, data: st.DataObject) -> None:
        """All read, but for these."""
        self._mark_all(user, "read", None)
        self._mark(user, "unread", data.draw(self._places(user)))

    def _places(self, user: str) -> st.SearchStrategy[list[int]]:
        """Mostly of rows that the user sees."""
        every = range(len(self.rows))
        seen = [place for place in every if self._shows(self.rows[place], user)]
        place = st.one_of(st.sampled_from(seen or every), st.sampled_from(every))
        return st.lists(place, min_size=1, max_size=4, unique=True)

    def _mark(self, user: str, mark: Any, picked: list[int]) -> None:
        ids = [self._id(self.rows[index], user) for index in picked]
        self.house.clock.advance(1)
        answer = self.runner.run(self.house.mark(user, mark, *ids, "ntf_unknown"))
        changed = []
        for index, notification_id in zip(picked, ids, strict=True):
            row = self.rows[index]
            before = set(row.marks[user])
            if self._shows(row, user):
                _apply(mark, row.marks[user])
                if row.marks[user] != before:
                    changed.append(notification_id)
        assert sorted(answer["ids"]) == sorted(set(changed))

    @rule(user=user, mark=st.sampled_from(("seen", "read")), category=st.none() | category)
    def mark_all(self, user: str, mark: str, category: str | None) -> None:
        """What exists, also what shows only later when the user chooses otherwise."""
        self._mark_all(user, mark, category)

    def _mark_all(self, user: str, mark: str, category: str | None) -> None:
        self.house.clock.advance(1)
        request = MarkRequest(mark, all=True, category=category)
        self.runner.run(self.house.hub.inbox.mark(user, request))
        for row in self.rows:
            if row.owner in (None, user) and category in (None, row.category):
                _apply(mark, row.marks[user])

    @precondition(lambda self: self.event_ids)
    @rule(data=st.data())
    def retract(self, data: st.DataObject) -> None:
        event_id = data.draw(st.sampled_from(self.event_ids))
        self.runner.run(self.house.hub.events.retract(event_id, "key_test"))
        for row in self.rows:
            row.gone = row.gone or row.event_id == event_id

    # ------------------------------------------------------------ the rules, naively

    def _allowed(self, event: dict[str, Any], name: str, way: str | None) -> bool:
        drawer = CATEGORIES[event["type"]]
        return event["type"] in CRITICAL or allows(
            self.wishes[name], event, drawer, way, DEFAULTS.get(drawer, {})
        )

    def _shows(self, row: Row, name: str) -> bool:
        if row.gone or row.owner not in (None, name):
            return False
        return row.owner == name or any(self._allowed(row.event, name, way) for way in row.came.get(name, ()))

    def _expected(self, name: str, query: dict[str, Any]) -> list[Shown]:
        archived = query.get("archived", "exclude")
        return [
            (row.title, *(mark in row.marks[name] for mark in ("seen", "read", "archived")))
            for row in reversed(self.rows)
            if self._shows(row, name)
            and (archived == "include" or ("archived" in row.marks[name]) is (archived == "only"))
            and not (query.get("unread") and "read" in row.marks[name])
            and query.get("category") in (None, row.category)
        ]

    def _id(self, row: Row, name: str) -> str:
        async def find() -> str:
            store = self.house.hub.store
            if row.owner is None:
                return (await store.event_broadcasts(row.event_id))[0].id
            [found] = [
                one
                for one in await store.event_notifications(row.event_id, None, 10)
                if one.user_id == row.owner
            ]
            return found.id

        return self.runner.run(find())

    # ------------------------------------------------------------ what is compared after every step

    @invariant()
    def every_inbox_is_the_list(self) -> None:
        """All rows and the counts of all users; of one user, in turns, also each filter and the paging."""
        self.steps += 1
        everything = {"archived": "include"}
        for name in USERS:
            assert self._listed(name, everything, limit=100) == self._expected(name, everything)
            fresh = [row for row in self._expected(name, {}) if not row[2]]
            counts = self.runner.run(self.house.hub.inbox.counts(name))
            assert (counts.unread, counts.unseen) == (len(fresh), sum(not row[1] for row in fresh))
        name = USERS[self.steps % len(USERS)]
        for query in FILTERS:
            assert self._listed(name, query, limit=100) == self._expected(name, query)
        assert self._listed(name, everything, limit=3) == self._expected(name, everything)

    def _listed(self, name: str, query: dict[str, Any], limit: int) -> list[Shown]:
        return self.runner.run(self._pages(name, query, limit))

    async def _pages(self, name: str, query: dict[str, Any], limit: int) -> list[Shown]:
        found = []
        cursor = None
        while True:
            page = await self.house.hub.inbox.page(name, limit=limit, cursor=cursor, **query)
            assert len(page["notifications"]) <= limit
            for row in page["notifications"]:
                marks = (row.seen_at, row.read_at, row.archived_at)
                found.append((row.title, *(mark is not None for mark in marks)))
            cursor = page["next"]
            if cursor is None:
                return found


def _audience(event: dict[str, Any]) -> tuple[frozenset[str], bool]:
    broadcast = [entry for entry in event["to"] if isinstance(entry, dict)]
    return (
        frozenset(entry["topic"] for entry in broadcast if "topic" in entry),
        any("everyone" in entry for entry in broadcast),
    )


def _apply(mark: str, marks: set[str]) -> None:
    match mark:
        case "seen":
            marks.add("seen")
        case "read":
            marks |= {"seen", "read"}
        case "unread":
            marks.discard("read")
        case "archive":
            marks.add("archived")
        case "unarchive":
            marks.discard("archived")


TestInbox = pytest.mark.req("R11", "R12", "R19")(
    pytest.mark.timeout(1200)(pytest.mark.slow(InboxMachine.TestCase))
)
TestInbox.settings = settings(
    max_examples=int(os.environ.get("INBOX_EXAMPLES", "5")),  # `make faults` asks for more
    stateful_step_count=20,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # a smaller example is not worth its minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
