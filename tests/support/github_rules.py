"""Who must find which recorded event in the app: the rules of CONTRACT restated naively, without the product's code.

Slow and plain on purpose: one question per rule, asked for every user and every event.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]


def expected_inboxes(
    events: Sequence[Json],
    categories: Mapping[str, str],
    subscriptions: Mapping[str, set[str]],
    preferences: Mapping[str, Json],
    *,
    defaults: Mapping[str, Json] | None = None,
    critical: frozenset[str] = frozenset(),
) -> dict[str, list[int]]:
    """For each user the indexes of the events in their inbox, in the order in which the events were published.

    `categories`: category by type. `subscriptions`: topics by user, as they stood all the time. `defaults`: a category's
    `defaults` by category. `critical`: the types that pass every rule. A user whom an event names once as a user and
    once by a topic has it once. Users are those that any argument names.
    """
    users = set(subscriptions) | set(preferences) | {name for event in events for name in named_users(event)}
    return {
        user: [
            index
            for index, event in enumerate(events)
            if is_meant(event, user)
            and any(
                event["type"] in critical
                or allows(
                    preferences.get(user, {}),
                    event,
                    categories[event["type"]],
                    topic,
                    (defaults or {}).get(categories[event["type"]], {}),
                )
                for topic in ways(event, user, subscriptions.get(user, set()))
            )
        ]
        for user in sorted(users)
    }


def entries(event: Json) -> list[Any]:
    to = event["to"]
    return list(to) if isinstance(to, list) else [to]


def named_users(event: Json) -> set[str]:
    """Users whom the event addresses by name."""
    found = set()
    for entry in entries(event):
        if isinstance(entry, str):
            found.add(entry)
        elif "id" in entry:
            found.add(entry["id"])
    return found


def topics(event: Json) -> set[str]:
    return {entry["topic"] for entry in entries(event) if isinstance(entry, dict) and "topic" in entry}


def is_meant(event: Json, user: str) -> bool:
    """Whether the event leaves this user out, before any wish of their own."""
    if user in event.get("exclude", []):
        return False
    if user in named_users(event):
        return True
    # From here on it would come as a broadcast, and that leaves out who caused it.
    return event.get("actor") != user or event.get("include_actor", False)


def ways(event: Json, user: str, subscribed: set[str]) -> list[str | None]:
    """How it may come to this user: None when it names them or everyone, else by topics. One way is enough."""
    if user in named_users(event):
        return [None]
    by_topic: list[str | None] = sorted(topics(event) & subscribed)
    if any(isinstance(entry, dict) and entry.get("everyone") is True for entry in entries(event)):
        by_topic.append(None)
    return by_topic


def allows(wishes: Json, event: Json, category: str, topic: str | None, default: Json) -> bool:
    """Whether the user's own rules let the event into the app. Every rule that applies must allow."""
    if wishes.get("channels", {}).get("in_app", True) is False:
        return False
    drawer = wishes.get("categories", {}).get(category, {})
    if drawer is False:
        return False
    chosen = drawer.get("in_app") if isinstance(drawer, dict) else None
    if (default.get("in_app", True) if chosen is None else chosen) is False:
        return False
    muted = wishes.get("muted", {})
    if event.get("actor") in muted.get("actors", []):
        return False
    if topic is not None and topic in muted.get("topics", []):
        return False
    only = wishes.get("only", {}).get("categories", {}).get(category)
    if only is not None:
        if only.get("actors") is not None and event.get("actor") not in only["actors"]:
            return False
        if only.get("topics") is not None and topic not in only["topics"]:
            return False
    return True
