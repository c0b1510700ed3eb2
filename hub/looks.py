"""Looks: what batches ask of the store before they are planned, for several of them at once."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from hub.ports import Situation, Store


class Question(NamedTuple):
    """What is looked up for a batch: events' ids by the keys of their slices, and users."""

    parts: Mapping[str, Sequence[str]]
    users: Sequence[str]


Look = Callable[[Question], Awaitable[Situation]]


async def look_together(store: Store, questions: Sequence[Question]) -> list[Situation]:
    """One look for several batches: to each what it asked for."""
    parts: dict[str, list[str]] = {}
    for question in questions:
        for key, ids in question.parts.items():
            parts.setdefault(key, []).extend(ids)
    found = await store.situation(parts, sorted({id_ for question in questions for id_ in question.users}))
    return [
        replace(found, users={id_: found.users[id_] for id_ in question.users if id_ in found.users})
        for question in questions
    ]
