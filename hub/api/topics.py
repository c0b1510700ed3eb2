"""Topics: named groups that users follow."""

from hub.api.models import Page, TopicChange, Topics, TopicShown, TopicUsers
from hub.api.paging import after_of, next_of
from hub.api.problems import not_found
from hub.api.routing import Call, Reply, Route


async def list_topics(call: Call) -> Reply:
    """GET /v1/topics."""
    page = call.query_as(Page)
    rows = await call.parts.people.list_topics(after_of(page.cursor), page.limit + 1)
    listed = rows[: page.limit]
    following = next_of(rows, page.limit, listed[-1][0] if listed else "")
    return Reply(Topics([TopicShown(topic, users) for topic, users in listed], following))


async def delete(call: Call) -> Reply:
    """DELETE /v1/topics/{topic}."""
    if not await call.parts.people.delete_topic(call.path["topic"]):
        raise not_found(f"A topic {call.path['topic']!r} with subscribers")
    return Reply(status=204)


async def users(call: Call) -> Reply:
    """GET /v1/topics/{topic}/users."""
    page = call.query_as(Page)
    rows = await call.parts.people.topic_users(call.path["topic"], after_of(page.cursor), page.limit + 1)
    listed = list(rows[: page.limit])
    return Reply(TopicUsers(listed, next_of(rows, page.limit, listed[-1] if listed else "")))


async def change(call: Call) -> Reply:
    """POST /v1/topics/{topic}/users."""
    wanted = call.body_as(TopicChange)
    await call.parts.people.change_topic(call.path["topic"], wanted.add, wanted.remove)
    return Reply(status=204)


async def add(call: Call) -> Reply:
    """PUT /v1/topics/{topic}/users/{id}."""
    await call.parts.people.change_topic(call.path["topic"], [call.path["id"]], [])
    return Reply(status=204)


async def remove(call: Call) -> Reply:
    """DELETE /v1/topics/{topic}/users/{id}."""
    await call.parts.people.change_topic(call.path["topic"], [], [call.path["id"]])
    return Reply(status=204)


ROUTES = [
    Route(
        "GET",
        "/v1/topics",
        list_topics,
        ("users",),
        "List topics with their number of subscribers",
        Topics,
        query=Page,
        codes=("invalid_cursor",),
    ),
    Route("DELETE", "/v1/topics/{topic}", delete, ("users",), "End all subscriptions of a topic", None, 204),
    Route(
        "GET",
        "/v1/topics/{topic}/users",
        users,
        ("users",),
        "List the subscribers of a topic",
        TopicUsers,
        query=Page,
        codes=("invalid_cursor",),
    ),
    Route(
        "POST",
        "/v1/topics/{topic}/users",
        change,
        ("users",),
        "Subscribe and unsubscribe up to 10,000 users",
        None,
        204,
        body=TopicChange,
        body_kind="json",
        body_limit=2 * 1024 * 1024,
        codes=("too_many_topics",),
    ),
    Route(
        "PUT",
        "/v1/topics/{topic}/users/{id}",
        add,
        ("users",),
        "Subscribe a user",
        None,
        204,
        codes=("too_many_topics",),
    ),
    Route("DELETE", "/v1/topics/{topic}/users/{id}", remove, ("users",), "Unsubscribe a user", None, 204),
]
