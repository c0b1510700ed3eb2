"""The pages over ASGI: who sees what, how a link becomes a session, and what the answers forbid browsers to do."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from hub.api.app import create_app
from hub.errors import StoreUnavailable
from hub.sessions import COOKIE, LINK_SECONDS, SESSION_SECONDS
from tests.support.house import House, open_house
from web.assets import Assets
from web.routes import STATIC, WATCH_SECONDS, page_routes

HOST = "http://127.0.0.1:8000"
OWN = {"origin": HOST}


@dataclass
class Site:
    house: House
    client: httpx2.AsyncClient

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.client.get(path, headers=headers)

    async def operator(self) -> None:
        """Sign in by a link, as an operator does."""
        answer = await self.get(f"/dashboard?link={await self.house.hub.sessions.create_link()}")
        assert answer.status_code == 303

    async def user(self, user: str) -> None:
        """Sign in with a token, as a page of an app does."""
        token = self.house.hub.access.tokens.issue(user)
        answer = await self.client.post("/v1/me/session", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 200

    async def watch(self, user: object, headers: dict[str, str] | None = None) -> httpx2.Response:
        return await self.client.post(
            "/dashboard/watch", json={"user": user}, headers=OWN if headers is None else headers
        )


@pytest.fixture
async def site(clock) -> AsyncIterator[Site]:
    async with open_house(clock) as house:
        app = create_app(house.hub, page_routes(house.hub))
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=HOST) as client:
            yield Site(house, client)


# ---------------------------------------------------------------- the link


@pytest.mark.req("R34")
async def test_the_printed_link_opens_the_dashboard_once_and_leaves_the_address(site: Site) -> None:
    link = f"/dashboard?link={await site.house.hub.sessions.create_link()}"
    entered = await site.get(link)
    assert (entered.status_code, entered.headers["location"]) == (303, "dashboard")
    assert (entered.headers["cache-control"], entered.headers["referrer-policy"]) == (
        "no-store",
        "no-referrer",
    )
    cookie = entered.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))

    shown = await site.get("/dashboard")
    assert shown.status_code == 200
    assert "Live log" in shown.text
    assert (await site.get(link)).status_code == 303, "a second click of who is in does no harm"

    site.client.cookies.clear()
    again = await site.get(link)
    assert again.status_code == 401
    assert "does not work any more" in again.text
    assert "clarion dashboard" in again.text
    assert "set-cookie" not in again.headers


@pytest.mark.req("R34")
@pytest.mark.parametrize("link", ["", "x", "%00", "%ed%a0%80", "a" * 5_000, "<script>alert(1)</script>"])
async def test_a_link_that_is_none_gets_the_page_that_says_so(site: Site, link: str) -> None:
    answer = await site.get(f"/dashboard?link={link}")
    assert answer.status_code == 401
    assert "<script>alert" not in answer.text


@pytest.mark.req("R34")
async def test_a_link_that_is_too_old_is_refused(site: Site) -> None:
    link = await site.house.hub.sessions.create_link()
    site.house.clock.advance(LINK_SECONDS + 1)
    assert (await site.get(f"/dashboard?link={link}")).status_code == 401


@pytest.mark.req("R34")
@pytest.mark.parametrize("header", ["sec-purpose", "purpose", "x-purpose", "x-moz"])
async def test_nobody_uses_a_link_up_by_looking_ahead(site: Site, header: str) -> None:
    link = f"/dashboard?link={await site.house.hub.sessions.create_link()}"
    assert (await site.client.head(link)).status_code == 503
    value = "preview" if header == "x-purpose" else "prefetch"
    assert (await site.get(link, **{header: value})).status_code == 503
    assert (await site.get(link)).status_code == 303


# ---------------------------------------------------------------- who sees what


@pytest.mark.req("R34", "I16")
async def test_the_dashboard_is_for_operators_alone(site: Site) -> None:
    nobody = await site.get("/dashboard")
    assert nobody.status_code == 401
    assert "clarion dashboard" in nobody.text
    assert nobody.headers["www-authenticate"].startswith("Bearer")

    await site.user("alice")
    user = await site.get("/dashboard")
    assert user.status_code == 403
    assert "alice" in user.text
    assert "Live log" not in user.text


@pytest.mark.req("R34")
async def test_a_session_that_ended_or_was_revoked_counts_as_none(site: Site) -> None:
    await site.operator()
    site.house.clock.advance(SESSION_SECONDS + 61)
    assert (await site.get("/dashboard")).status_code == 401

    site.client.cookies.clear()
    await site.operator()
    site.house.clock.advance(1)
    await site.house.hub.people.revoke_tokens("operator")
    assert (await site.get("/dashboard")).status_code == 401


async def test_a_garbled_cookie_counts_as_none(site: Site) -> None:
    for value in (b"x", b"a.b.c", b"\xe4", b"x" * 9_000, b'"'):
        answer = await site.client.get("/dashboard", headers={b"cookie": COOKIE.encode() + b"=" + value})
        assert answer.status_code == 401


@pytest.mark.req("R11", "I16")
async def test_users_see_their_own_preferences_and_nobody_elses(site: Site) -> None:
    nobody = await site.get("/preferences")
    assert nobody.status_code == 401
    assert "session.js" in nobody.text, "a link with a token signs in there"

    await site.user("alice")
    own = await site.get("/preferences")
    assert own.status_code == 200
    assert 'data-user="alice" data-operator=""' in own.text
    assert (await site.get("/preferences?user=alice")).status_code == 200
    others = await site.get("/preferences?user=bob")
    assert others.status_code == 403
    assert 'data-user="bob"' not in others.text


@pytest.mark.req("R11")
async def test_operators_choose_a_user_and_are_told_whose_preferences_they_change(site: Site) -> None:
    await site.operator()
    assert "Whose preferences?" in (await site.get("/preferences")).text
    shown = await site.get("/preferences?user=alice")
    assert 'data-user="alice" data-operator="yes"' in shown.text
    assert "You are an operator." in shown.text


@pytest.mark.req("R35")
async def test_a_hostile_user_id_is_escaped_and_refused(site: Site) -> None:
    await site.operator()
    answer = await site.client.get("/preferences", params={"user": '"><script>alert(1)</script>'})
    assert answer.status_code == 422
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;" in answer.text


async def test_the_root_leads_to_the_dashboard(site: Site) -> None:
    answer = await site.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "dashboard")


async def test_an_outage_is_told_as_a_page(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.operator()

    async def away(_session: str) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(site.house.hub.access, "authenticate_session", away)
    answer = await site.get("/dashboard")
    assert answer.status_code == 503
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["retry-after"]
    assert "The database cannot be reached" in answer.text


# ---------------------------------------------------------------- looking into an inbox


@pytest.mark.req("R34")
async def test_an_operator_gets_a_token_of_some_minutes_for_a_users_inbox(site: Site) -> None:
    await site.operator()
    answer = await site.watch("alice")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    identity = await site.house.hub.access.authenticate(answer.json()["token"])
    assert (identity.user_id, identity.operator) == ("alice", False)
    site.house.clock.advance(WATCH_SECONDS + 61)
    with pytest.raises(Exception, match="expired"):
        await site.house.hub.access.authenticate(answer.json()["token"])


@pytest.mark.req("R34", "I16")
async def test_nobody_else_gets_one(site: Site) -> None:
    assert (await site.watch("alice")).status_code == 401
    await site.user("bob")
    assert (await site.watch("alice")).status_code == 403

    site.client.cookies.clear()
    key = {"authorization": "Bearer test-key-0123456789abcdef", **OWN}
    assert (await site.watch("alice", key)).status_code == 401, "a key has the API"

    await site.operator()
    for headers in (
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ):
        assert (await site.watch("alice", headers)).status_code == 403
    form = await site.client.post(
        "/dashboard/watch", content="user=alice", headers={**OWN, "content-type": "text/plain"}
    )
    assert form.status_code == 400
    assert (await site.client.get("/dashboard/watch", headers=OWN)).status_code == 405


@pytest.mark.req("R35")
@pytest.mark.parametrize("user", ["", "a b", "../bob", "x" * 129, None, 7, {"id": "alice"}])
async def test_only_ids_can_be_watched(site: Site, user: object) -> None:
    await site.operator()
    answer = await site.watch(user)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/user"


async def test_a_body_that_is_too_large_is_refused(site: Site) -> None:
    await site.operator()
    body = b'{"user": "' + b"a" * 5_000 + b'"}'
    headers = {**OWN, "content-type": "application/json"}
    assert (await site.client.post("/dashboard/watch", content=body, headers=headers)).status_code == 413


# ---------------------------------------------------------------- what browsers may do


@pytest.mark.req("R35")
async def test_every_page_forbids_what_it_does_not_need(site: Site) -> None:
    pages = [
        await site.get("/dashboard"),
        await site.get("/preferences"),
        await site.get("/dashboard?link=x"),
    ]
    await site.operator()
    pages += [
        await site.get("/dashboard"),
        await site.get("/preferences"),
        await site.get("/preferences?user=al"),
    ]
    for page in pages:
        policy = dict(
            part.strip().partition(" ")[::2] for part in page.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=", page.text), (
            "something is inline"
        )
        addresses = re.findall(r'(?:src|href|action)="([^"]*)"', page.text)
        assert addresses
        assert not [one for one in addresses if one.startswith(("/", "http:", "https:"))], (
            "below a path it would break"
        )


@pytest.mark.req("R34")
async def test_a_public_address_with_a_path_and_tls_shapes_cookie_and_policy(clock) -> None:
    async with open_house(clock, public_url="https://example.com/hub") as house:
        app = create_app(house.hub, page_routes(house.hub))
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="https://example.com"
        ) as client:
            entered = await client.get(f"/dashboard?link={await house.hub.sessions.create_link()}")
            assert {"Path=/hub", "Secure"} <= set(entered.headers["set-cookie"].split("; "))
            assert entered.headers["location"] == "dashboard"
            assert (
                "connect-src 'self' wss://example.com;"
                in (await client.get("/dashboard")).headers["content-security-policy"]
            )


# ---------------------------------------------------------------- static files


async def test_static_files_have_their_type_and_are_kept_by_their_version(site: Site) -> None:
    page = (await site.get("/dashboard")).text
    sheet = re.search(r'href="(static/v-[0-9a-f]+/page\.css)"', page)
    assert sheet
    served = await site.get(f"/{sheet[1]}")
    assert served.headers["content-type"] == "text/css; charset=utf-8"
    assert served.headers["cache-control"] == "public, max-age=31536000, immutable"

    known = await site.get(f"/{sheet[1]}", **{"if-none-match": served.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["etag"] == served.headers["etag"]
    for tags in ("*", f'"x", W/{served.headers["etag"]}'):
        assert (await site.get("/static/page.css", **{"if-none-match": tags})).status_code == 304
    assert (await site.get("/static/page.css", **{"if-none-match": '"x"'})).status_code == 200


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("client.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
        ("page.css", "text/css; charset=utf-8"),
    ],
)
async def test_types_do_not_depend_on_the_system(site: Site, name: str, media_type: str) -> None:
    for path in (
        f"/static/{name}",
        f"/static/v-{'0' * 16}/{name}",
    ):  # another node's version: asked again each time
        answer = await site.get(path)
        assert answer.headers["content-type"] == media_type
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    "path",
    [
        "nothing.js",
        "",
        "README.md",
        "../pyproject.toml",
        "..%2fpyproject.toml",
        "%2e%2e/web/routes.py",
        "v-x/page.css",
        "\\page.css",
    ],
)
async def test_nothing_else_is_served(site: Site, path: str) -> None:
    answer = await site.get(f"/static/{path}")
    assert answer.status_code == 404
    assert answer.headers["cache-control"] == "no-store"


def test_the_version_changes_with_every_byte(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("1")
    before = Assets(tmp_path).version
    assert Assets(tmp_path).version == before
    (tmp_path / "a.js").write_text("2")
    assert Assets(tmp_path).version != before


def test_scripts_never_make_markup_of_text_and_ask_nobody_else() -> None:
    scripts = sorted(STATIC.glob("*.js"))
    assert scripts
    for script in scripts:
        text = script.read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        ), script
        imported = re.findall(r"from '([^']+)'", text)
        assert all(one.startswith("./") and (STATIC / one).is_file() for one in imported), script
    assert not re.search(r"url\(|@import", (STATIC / "page.css").read_text())


@pytest.mark.req("R7")
async def test_the_service_worker_of_our_pages_may_do_what_it_needs_and_no_more(site: Site) -> None:
    answer = await site.get("/push-worker.js")
    assert answer.text == "importScripts('static/push.js');\n"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith(f"default-src 'none'; script-src 'self'; connect-src 'self' {HOST}; ")
    assert answer.headers["cache-control"] == "no-cache"
    await site.user("alice")
    page = (await site.get("/preferences")).headers["content-security-policy"]
    assert "trusted-types clarion-worker" in page, "no other address of a script is made from a text"


@pytest.mark.req("R7")
async def test_other_sites_may_load_what_is_meant_for_them(site: Site) -> None:
    for name in ("push.js", "push-client.js"):
        answer = await site.get(f"/static/{name}")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    for name in ("client.js", "browsers.js", "page.css"):
        assert "access-control-allow-origin" not in (await site.get(f"/static/{name}")).headers


@pytest.mark.req("R7")
async def test_a_user_turns_browser_notifications_on_and_an_operator_does_not(site: Site) -> None:
    await site.user("alice")
    assert 'id="push-on"' in (await site.get("/preferences")).text
    site.client.cookies.clear()
    await site.operator()
    assert 'id="push-on"' not in (await site.get("/preferences?user=alice")).text
