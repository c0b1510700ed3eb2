"""Unsubscribing by the link in an e-mail: RFC 8058 over the whole API, from the message to the preferences."""

import re
from typing import Any

import pytest

from hub.links import SignedLinks
from hub.model.vocabulary import Channel
from hub.unsubscribe import PURPOSE, Wish, unsubscribe_url
from tests.support.api import ORIGIN, Api
from tests.support.mail_outgoing import outgoing, parsed

pytestmark = [pytest.mark.req("R11")]
ON = ("memory", "servers")
ONE_CLICK = {"content-type": "application/x-www-form-urlencoded"}
HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def links(api: Api) -> SignedLinks:
    return SignedLinks(api.hub.settings.token_secrets, PURPOSE)


def link(api: Api, user: str = "alice", category: str = "orders") -> str:
    return unsubscribe_url("", links(api), Wish(user, category))


async def preferences(api: Api, user: str = "alice") -> tuple[Any, str]:
    answer = await api.call("GET", f"/v1/users/{user}/preferences", key="first")
    return answer.json(), answer.headers["etag"]


async def furnish(api: Api) -> None:
    await api.call("PUT", "/v1/users/alice", key="first", json={"email": "alice@example.com", "locale": "ko"})
    category = {"title": "Orders <&>", "locales": {"ko": {"title": "주문"}}}
    await api.call("PUT", "/v1/categories/orders", key="first", json=category)


async def test_one_click_from_the_headers_of_a_message(api: Api) -> None:
    """What a mail program does: it takes the address from List-Unsubscribe and posts what List-Unsubscribe-Post says."""
    await furnish(api)
    url = f"{ORIGIN.replace('http', 'https')}{link(api)}"
    message = parsed(outgoing(urls={"unsubscribe": url}))
    address = message["List-Unsubscribe"].strip("<>").removeprefix("https://hub.test")
    answer = await api.call("POST", address, headers=ONE_CLICK, content=message["List-Unsubscribe-Post"])
    assert answer.status_code == 200
    assert "location" not in answer.headers
    assert "set-cookie" not in answer.headers
    assert (await preferences(api))[0]["categories"] == {"orders": {"email": False}}
    user = (await api.hub.store.load_users(["alice"]))["alice"]
    assert user.preferences.categories == {"orders": {Channel.EMAIL: False}}


async def test_looking_changes_nothing_and_posting_twice_is_once(api: Api) -> None:
    await furnish(api)
    before = await preferences(api)
    for method in ("GET", "HEAD", "GET"):
        page = await api.call(method, link(api), headers=HTML)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert (page.content == b"") == (method == "HEAD")
    assert '<form method="post">' in page.text
    assert "주문" in page.text, "in the user's language"
    assert "<script" not in page.text
    assert 'href="../preferences"' in page.text
    assert "form-action 'self'" in page.headers["content-security-policy"]
    assert await preferences(api) == before
    form = {"headers": HTML | {"content-type": "multipart/form-data; boundary=x"}, "content": b"--x--"}
    first = await api.call("POST", link(api), **form)
    after = await preferences(api)
    again = await api.call("POST", link(api), **form)
    assert first.text == again.text
    assert "You are unsubscribed" in first.text
    assert await preferences(api) == after
    assert "You are unsubscribed" in (await api.call("GET", link(api))).text
    entries = (await api.call("GET", "/v1/log?user=alice&state=unsubscribed", key="first")).json()["entries"]
    assert [(one["category"], one["channel"]) for one in entries] == [("orders", "email")]


async def test_what_else_was_chosen_stays(api: Api) -> None:
    await furnish(api)
    own = {"channels": {"sms": False}, "categories": {"orders": {"sms": True}, "news": False, "posts": True}}
    await api.call("PUT", "/v1/users/alice/preferences", key="first", json=own)
    for category in ("orders", "news", "posts", "unknown"):
        assert (await api.call("POST", link(api, category=category))).status_code == 200
    shown = (await preferences(api))[0]
    assert shown["channels"] == {"sms": False}
    assert shown["categories"] == {
        "orders": {"sms": True, "email": False},
        "news": False,  # wider already: switching e-mail off in it would switch the rest on
        "posts": {"email": False},
        "unknown": {"email": False},
    }


async def test_other_nodes_hear_of_it(api: Api) -> None:
    await furnish(api)
    heard: list[bytes] = []
    told = api.hub.bus.send_control

    async def listen(message: bytes) -> None:
        heard.append(message)
        await told(message)

    api.hub.bus.send_control = listen  # type: ignore[method-assign]
    await api.call("POST", link(api))
    assert any(b'"user"' in message and b"alice" in message for message in heard)


@pytest.mark.req("I16", "R35")
async def test_made_up_links_do_nothing(api: Api) -> None:
    await furnish(api)
    good = links(api).sign({"user": "alice", "category": "orders"})
    head, body, signature = good.split(".")
    other = SignedLinks([b"another secret of at least 32 bytes !"], PURPOSE)
    says = {"user": "alice", "category": "orders"}
    wrong = [
        "x",
        "a" * 2_000,
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-2]}AA",
        good.upper(),
        other.sign(says),
        SignedLinks(api.hub.settings.token_secrets, "receipt").sign(says),
        api.token("alice"),
        await api.session("alice"),
        links(api).sign({"user": "alice"}),
        links(api).sign({"user": ["alice"], "category": "orders"}),
        links(api).sign({"user": "a b", "category": "orders"}),
        "%00",
        "%ed%a0%80",
        "eyJhbGciOiJub25lIn0.eyJ1c2VyIjoiYWxpY2UiLCJjYXRlZ29yeSI6Im9yZGVycyJ9.",
    ]
    for token in wrong:
        for method in ("GET", "POST"):
            problem = await api.call(method, f"/unsubscribe/{token}")
            assert problem.status_code == 404, token
            assert problem.headers["content-type"] == "application/problem+json"
    page = await api.call("GET", "/unsubscribe/x", headers=HTML)
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "This link does not work" in page.text
    assert "categories" not in (await preferences(api))[0]
    for method in ("PUT", "DELETE", "PATCH"):
        assert (await api.call(method, link(api))).status_code == 405


@pytest.mark.req("I16")
async def test_a_link_is_for_its_user_and_category_alone(api: Api) -> None:
    await furnish(api)
    await api.call("PUT", "/v1/users/bob", key="first", json={"email": "bob@example.com"})
    await api.call("POST", link(api), token="bob", session="bob")
    assert "categories" not in (await preferences(api, "bob"))[0]
    assert set((await preferences(api))[0]["categories"]) == {"orders"}


@pytest.mark.req("R10")
async def test_after_the_user_is_erased_a_link_is_harmless(api: Api) -> None:
    await furnish(api)
    token = link(api)
    await api.call("DELETE", "/v1/users/alice", key="first")
    for _ in range(2):
        assert (await api.call("POST", token)).status_code == 200
        assert (await api.call("GET", token)).status_code == 200
    assert (await api.call("GET", "/v1/users/alice", key="first")).status_code == 404
    assert (await api.call("GET", "/v1/users", key="first")).json()["users"] == []
    entries = (await api.call("GET", "/v1/log?state=unsubscribed", key="first")).json()["entries"]
    assert entries == []


async def test_the_page_escapes_what_it_shows(api: Api) -> None:
    await furnish(api)
    await api.call("PATCH", "/v1/users/alice", key="first", json={"locale": None})
    page = (await api.call("GET", link(api))).text
    assert "Orders &lt;&amp;&gt;" in page
    assert not re.search(r"<script|javascript:|onclick", page)
