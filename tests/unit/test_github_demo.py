"""The recorded GitHub webhooks: every one becomes an event that is accepted and reads well."""

import json
import re
from collections import Counter
from importlib.resources import files
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.demo.github import as_id, audience_of, event_of, recorded_events, recorded_webhooks
from hub.demo.player import demo_definitions, topics_of, watchers
from hub.model.admission import EVENT_LIMIT_BYTES, admit
from hub.model.events import EventInput
from hub.model.notifications import Broadcast
from hub.model.preferences import allows
from hub.model.templates import compile_check, render
from hub.model.types import TypeDefinition, TypeVersion
from hub.model.users import Preferences, Profile, Subscription, User
from hub.model.visibility import visible
from hub.model.vocabulary import Channel, is_id
from tests.support.github_rules import expected_inboxes

EVENTS = list(recorded_events())
DEFINITIONS = demo_definitions()
TEXTS = ("title", "body", "url", "icon")


def rendered(event: dict[str, Any], locale: str | None = None) -> dict[str, str]:
    definition = DEFINITIONS.types[event["type"]]
    texts = definition if locale is None else definition["locales"][locale]
    known = {"data": event["data"]}  # a broadcast has no recipient, and nothing else is needed
    return {key: render(texts[key], known) for key in TEXTS if key in texts}


def test_all_recorded_webhooks_are_there():
    assert len(EVENTS) == 329
    assert len({name for name, _ in recorded_webhooks()}) == 58


@pytest.mark.req("R14")
def test_every_event_is_accepted_as_it_is():
    for place, event in enumerate(EVENTS):
        kind = event["type"]
        version = TypeVersion(kind, 1, msgspec.convert(DEFINITIONS.types[kind], TypeDefinition))
        given_event = msgspec.convert(event, EventInput)
        admitted = admit(
            given_event, version, event_id=f"evt_{place}", now_us=1, source="http:demo", partitions=8
        )
        assert admitted.slices
        assert len(json.dumps(event, ensure_ascii=False).encode()) <= EVENT_LIMIT_BYTES


def test_data_is_the_untouched_payload():
    for event, (name, payload) in zip(EVENTS, recorded_webhooks(), strict=True):
        assert event["data"] == payload
        assert event == event_of(name, payload)


def test_types_name_the_webhook_and_its_action():
    kinds = Counter(event["type"] for event in EVENTS)
    assert kinds["github.push"] == 7
    assert kinds["github.pull_request.opened"] == 4
    assert kinds["github.repository_dispatch.on-demand-test"] == 2
    assert len(kinds) == 161


def test_a_repository_goes_before_an_organization_and_that_before_the_sender():
    owner, sender = {"login": "octo-org"}, {"login": "octocat"}
    repository = {"full_name": "octo-org/octo.repo"}
    everything = {"repository": repository, "organization": owner, "sender": sender}
    assert audience_of(everything) == {"topic": "repo:octo-org:octo.repo"}
    assert audience_of({"organization": owner, "sender": sender}) == {"topic": "org:octo-org"}
    assert audience_of({"sender": sender}) == "octocat"
    assert audience_of({}) == {"topic": "github"}


def test_what_has_neither_repository_nor_organization_goes_to_whom_it_concerns():
    others: dict[str, list[Any]] = {}
    for event in EVENTS:
        if not {"repository", "organization"} & set(event["data"]):
            others.setdefault(event["type"].split(".")[1], []).append(event["to"])
    assert set(others) == {
        "github_app_authorization",
        "installation",
        "installation_repositories",
        "marketplace_purchase",
        "security_advisory",
        "sponsorship",
    }
    assert set(others["installation"]) == {"octocat", "Codertocat"}
    assert others["github_app_authorization"] == ["octocat", "octocat"]
    assert [{"topic": "org:organizationUsername"}, "username"] in others["marketplace_purchase"]
    assert all(to == ["octocat", "monalisa"] for to in others["sponsorship"])
    assert {"topic": "advisories:pip"} in others["security_advisory"]
    assert {"topic": "advisories:npm"} in others["security_advisory"]


def test_an_installation_of_an_organization_goes_to_its_watchers():
    account = {"login": "octo-org", "type": "Organization"}
    assert audience_of({"installation": {"account": account}, "sender": {"login": "a"}}) == {
        "topic": "org:octo-org"
    }


def test_bots_keep_a_readable_id():
    assert as_id("dependabot[bot]") == "dependabot+bot"
    assert {"renovate+bot", "octocoders-linter+bot"} <= {event.get("actor") for event in EVENTS}
    assert as_id("a/b") == "a=2Fb"


@given(st.text())
def test_any_text_becomes_an_id(text: str):
    assert is_id(as_id(text))
    assert as_id(text) == as_id(text)


@given(
    st.lists(st.from_regex(r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}(?:\[bot\])?", fullmatch=True), unique=True)
)
def test_different_logins_stay_different(logins: list[str]):
    assert len({as_id(login) for login in logins}) == len(logins)


def test_every_type_that_occurs_is_defined_and_no_other():
    assert set(DEFINITIONS.types) == {event["type"] for event in EVENTS}
    assert {one["category"] for one in DEFINITIONS.types.values()} == set(DEFINITIONS.categories)


def test_every_type_passes_the_check_of_templates():
    for definition in DEFINITIONS.types.values():
        assert compile_check(msgspec.convert(definition, TypeDefinition)) == []


@pytest.mark.req("R16")
@pytest.mark.parametrize("locale", [None, "ko"])
def test_every_title_can_be_read_by_a_person(locale: str | None):
    for event in EVENTS:
        title = rendered(event, locale)["title"]
        assert 10 <= len(title) <= 140, title
        assert not re.search(r"None|\{\{|\}\}|\{%|undefined|True|False|\n|  |null|\[\]|refs/", title), title
        assert title == title.strip()


def test_titles_are_written_in_korean_where_it_was_promised():
    for event in EVENTS:
        assert re.search(r"[가-힣]", rendered(event, "ko")["title"])


def test_bodies_links_and_pictures_are_short_and_whole():
    for event in EVENTS:
        texts = rendered(event)
        body = texts["body"]
        assert 0 < len(body) <= 200, body
        assert "\n" not in body
        assert not re.search(r"None|\{\{|undefined", body), body
        assert re.fullmatch(r"https?://\S+", texts["url"]), texts["url"]
        if "icon" in texts:
            assert re.fullmatch(r"https?://\S+", texts["icon"]), texts["icon"]


def test_what_clients_get_of_the_data_is_there():
    for event in EVENTS:
        for key in DEFINITIONS.types[event["type"]].get("expose", []):
            assert key in event["data"], (event["type"], key)


@pytest.mark.parametrize(
    ("place", "title", "body"),
    [
        (
            "github.pull_request.opened",
            "Codertocat opened pull request #2: Update the README with new information.",
            "Codertocat/Hello-World: This is a pretty simple change that we need to pull into master.",
        ),
        (
            "github.push",
            "Codertocat pushed the new tag simple-tag",
            "Codertocat/Hello-World: Adding a .gitignore file",
        ),
        ("github.star.created", "Codertocat starred Codertocat/Hello-World", "1 star now"),
        (
            "github.check_run.completed",
            "The check Octocoders-linter failed",
            "Codertocat/Hello-World, branch changes",
        ),
        (
            "github.member.added",
            "hacktocat became a collaborator",
            "in Codertocat/Hello-World",
        ),
    ],
)
def test_some_of_them_in_full(place: str, title: str, body: str):
    event = next(event for event in EVENTS if event["type"] == place)
    texts = rendered(event)
    assert (texts["title"], texts["body"]) == (title, body)


def test_the_payloads_come_with_their_licence():
    text = files("hub.demo").joinpath("github-webhooks.LICENSE").read_text()
    assert "MIT License" in text
    assert "@octokit/webhooks-examples" in text


PEOPLE = watchers(DEFINITIONS.categories)
CATEGORIES = {name: one["category"] for name, one in DEFINITIONS.types.items()}
SUBSCRIPTIONS = {
    person.user: set(topics_of(EVENTS) if person.topics is None else person.topics) for person in PEOPLE
}


def test_the_naive_count_tells_the_watchers_apart():
    found = expected_inboxes(
        EVENTS, CATEGORIES, SUBSCRIPTIONS, {person.user: person.preferences for person in PEOPLE}
    )
    assert found["alice"] == [place for place, event in enumerate(EVENTS) if topics_of([event])]
    assert len(found["alice"]) == 313
    assert {EVENTS[place]["actor"] for place in found["bob"]} == {"Codertocat"}
    assert len(found["bob"]) == 262
    assert sorted(found["bob"] + found["dave"]) == found["alice"]
    assert {CATEGORIES[EVENTS[place]["type"]] for place in found["carol"]} >= {"issues", "code", "reviews"}
    assert not {CATEGORIES[EVENTS[place]["type"]] for place in found["carol"]} & {"checks", "projects"}
    assert all(EVENTS[place]["to"] == {"topic": "repo:Codertocat:Hello-World"} for place in found["carol"])
    assert [EVENTS[place]["type"] for place in found["monalisa"]] == [
        "github.sponsorship.created",
        "github.sponsorship.pending_tier_change",
    ] * 2
    assert len(found["username"]) == 4


@pytest.mark.req("R12", "R19")
@pytest.mark.parametrize(
    "wishes",
    [
        *[person.preferences for person in PEOPLE],
        {"channels": {"in_app": False}},
        {"categories": {"issues": {"in_app": False}, "code": True}},
        {"muted": {"topics": ["repo:Codertocat:Hello-World"]}},
        {"only": {"categories": {"people": {"actors": ["Octocoders"], "topics": ["org:Octocoders"]}}}},
    ],
)
def test_what_the_product_shows_is_what_the_naive_count_says(wishes: dict[str, Any]):
    topics = topics_of(EVENTS)
    user = User(
        Profile("octocat"),
        msgspec.convert(wishes, Preferences),
        subscriptions=tuple(Subscription(topic, 1) for topic in topics),
    )
    shown = []
    for place, event in enumerate(EVENTS):
        version = TypeVersion(event["type"], 1, TypeDefinition(CATEGORIES[event["type"]]))
        given_event = msgspec.convert(event, EventInput)
        parts = admit(given_event, version, event_id="evt_1", now_us=1, source="x", partitions=1).slices
        addressed = any(named.id == "octocat" for part in parts.values() for named in part.users)
        category, actor = CATEGORIES[event["type"]], event.get("actor")
        if addressed:
            verdict = allows(user.preferences, category, {}, Channel.IN_APP, actor=actor)
            shown += [place] if verdict.allowed else []
        elif "lane" in parts:
            audience = parts["lane"].broadcast
            assert audience is not None
            broadcast = Broadcast("ntf", 5, "evt_1", event["type"], category, {}, 1, audience, actor=actor)
            shown += [place] if visible(broadcast, user, "UTC") else []
    expected = expected_inboxes(EVENTS, CATEGORIES, {"octocat": set(topics)}, {"octocat": wishes})
    assert shown == expected["octocat"]
