"""Admission: what becomes an event, how it is cut, and every refusal with its place."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import Refused
from hub.model.admission import SEND_AT_LIMIT_US, admit
from hub.model.events import EventInput, decode_slice, encode_slice
from hub.model.schedule import parse_moment
from hub.model.types import MESSAGE, TypeDefinition, TypeVersion
from hub.model.vocabulary import LANE, Channel, partition_of

NOW = parse_moment("2026-06-01T12:00:00Z")
EVENT_ID = "evt_0r52860y80032chk6gtk1d3wpy"
HOME = str(partition_of(EVENT_ID, 8))


def take(body, type_version=MESSAGE, partitions=8):
    event = msgspec.convert(body, EventInput)
    return admit(event, type_version, event_id=EVENT_ID, now_us=NOW, source="http:k", partitions=partitions)


def refusal(body, type_version=MESSAGE):
    with pytest.raises(Refused) as caught:
        take(body, type_version)
    assert caught.value.status == 422
    return caught.value


def mistakes(body, type_version=MESSAGE):
    return [(error.pointer, error.code) for error in refusal(body, type_version).errors]


def users_of(admitted):
    return {user.id: name for name, part in admitted.slices.items() for user in part.users}


# ---------------------------------------------------------------- audiences


@pytest.mark.req("R19")
def test_one_user_is_one_slice_on_their_partition():
    admitted = take({"to": "alice", "title": "Hello"})
    assert users_of(admitted) == {"alice": str(partition_of("alice", 8))}
    assert admitted.event.slices == len(admitted.slices) == 1
    assert admitted.event.accepted_at_us == NOW


@pytest.mark.req("R19")
@pytest.mark.req("R15")
def test_a_list_is_cut_by_partition_and_keeps_its_order():
    people = [f"user{number}" for number in range(50)]
    admitted = take({"to": people})
    assert users_of(admitted) == {one: str(partition_of(one, 8)) for one in people}
    for part in admitted.slices.values():
        here = [user.id for user in part.users]
        assert here == [one for one in people if one in here]
    assert admitted.event.slices == len(admitted.slices)


@pytest.mark.req("R19")
def test_the_same_user_twice_gets_one_notification_with_all_that_was_said_of_them():
    admitted = take(
        {"to": ["alice", {"id": "alice", "email": "a@b.c"}, {"id": "alice", "name": "Alice"}, "alice"]}
    )
    [part] = admitted.slices.values()
    assert [(user.id, user.email, user.name) for user in part.users] == [("alice", "a@b.c", "Alice")]


@pytest.mark.req("R19")
def test_topics_and_everyone_are_one_slice_on_the_lane():
    admitted = take({"to": [{"topic": "a"}, {"topic": "b"}, {"topic": "a"}, {"everyone": True}]})
    assert list(admitted.slices) == [LANE]
    audience = admitted.slices[LANE].broadcast
    assert (audience.topics, audience.everyone) == (("a", "b"), True)


@pytest.mark.req("R19")
def test_a_mixed_audience_is_both_and_nobody_gets_it_twice():
    admitted = take({"to": ["alice", {"topic": "t"}], "actor": "carol", "exclude": ["dan"]})
    assert set(admitted.slices) == {str(partition_of("alice", 8)), LANE}
    assert set(admitted.slices[LANE].broadcast.exclude) == {"alice", "carol", "dan"}


def test_a_broadcast_leaves_out_its_actor_unless_asked():
    assert take({"to": {"everyone": True}, "actor": "bob"}).slices[LANE].broadcast.exclude == ("bob",)
    included = take({"to": {"everyone": True}, "actor": "bob", "include_actor": True})
    assert included.slices[LANE].broadcast.exclude == ()


def test_an_addressed_actor_hears_of_their_own_event():
    assert list(users_of(take({"to": "bob", "actor": "bob"}))) == ["bob"]


def test_exclusion_counts_for_named_users_too():
    assert list(users_of(take({"to": ["alice", "bob"], "exclude": ["bob"]}))) == ["alice"]


def test_an_audience_that_exclusion_empties_is_accepted_and_leaves_a_trace():
    admitted = take({"to": ["bob"], "exclude": ["bob"]})
    [(name, part)] = admitted.slices.items()
    assert name == HOME
    assert (part.users, part.broadcast, part.schedule) == ((), None, None)
    assert admitted.event.slices == 1


@pytest.mark.parametrize(
    ("to", "pointer"),
    [
        ({}, "/to"),
        ({"id": "a", "topic": "t"}, "/to"),
        ([{"id": "a", "everyone": True}], "/to/0"),
        (["a", {"topic": "t", "everyone": True}], "/to/1"),
        ([{"topic": "t", "email": "a@b.c"}], "/to/0/email"),
        ([{"everyone": True, "name": "x"}], "/to/0/name"),
        ([{"email": "a@b.c"}], "/to/0"),
    ],
)
def test_each_item_of_an_audience_is_exactly_one_thing(to, pointer):
    assert mistakes({"to": to}) == [(pointer, "invalid_audience")]


@given(
    st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=8),
    st.lists(st.sampled_from(["t", "u"]), max_size=3),
    st.booleans(),
    st.lists(st.sampled_from(["a", "b", "z"]), max_size=3),
    st.integers(1, 5),
)
def test_cutting_loses_nobody_and_doubles_nobody(people, topics, everyone, exclude, partitions):
    to = [*people, *({"topic": topic} for topic in topics), *([{"everyone": True}] if everyone else [])]
    admitted = take({"to": to, "exclude": exclude}, partitions=partitions)
    named = [user.id for part in admitted.slices.values() for user in part.users]
    assert sorted(named) == sorted(set(people) - set(exclude))
    assert (LANE in admitted.slices) == bool(topics or everyone)
    if LANE in admitted.slices:
        assert set(admitted.slices[LANE].broadcast.exclude) == set(people) | set(exclude)
    for name, part in admitted.slices.items():
        assert decode_slice(encode_slice(part)) == part
        assert all(str(partition_of(user.id, partitions)) == name for user in part.users)


# ---------------------------------------------------------------- times


@pytest.mark.req("R18")
def test_a_moment_that_has_passed_is_now():
    assert take({"to": "a", "send_at": "2026-06-01T12:00:00Z"}).slices.keys() == {str(partition_of("a", 8))}
    assert take({"to": "a", "send_at": "1999-01-01T00:00:00+09:00"}).slices.keys() == {
        str(partition_of("a", 8))
    }


@pytest.mark.req("R18")
def test_a_scheduled_event_is_one_slice_with_its_whole_audience():
    admitted = take({"to": ["a", "b", {"topic": "t"}], "send_at": "2026-06-01T21:00:00.5+09:00"})
    [(name, part)] = admitted.slices.items()
    assert name == HOME
    assert part.schedule.send_at_us == NOW + 500_000
    assert [user.id for user in part.schedule.users] == ["a", "b"]
    assert part.schedule.broadcast.topics == ("t",)
    assert part.key(name) not in {str(number) for number in range(8)}


@pytest.mark.req("R18")
def test_a_local_time_waits_for_each_zone():
    [part] = take({"to": "a", "send_at": {"local": "09:00"}}).slices.values()
    assert (part.schedule.local, part.schedule.send_at_us) == ("09:00", None)


@pytest.mark.parametrize(
    "text",
    [
        "2026-12-01T09:00:00", "2026-12-01 09:00", "2026-12-01", "tomorrow", "", "1764579600", "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z", "2026-12-01T24:00:00Z", "2026-12-01T09:60:00Z", "2026-12-01T09:00:60Z",
        "2026-12-01T09:00:00+24:00", "2026-12-01T09:00:00+09:60", "2026-12-01T09:00:00 Z", "2026-12-01T09:00:00Z\n",
        "2026-12-01T09:00:00.Z", "٢٠٢٦-12-01T09:00:00Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+09:00",
        "9999-12-31T23:59:59-09:00", "2026-12-01T09:00:00Z\x00", "2026-12-01T09:00:00+9",
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["send_at", "expires_at"])
@pytest.mark.req("R35")
def test_moments_that_do_not_exist_or_have_no_zone(text, field):
    assert mistakes({"to": "a", field: text}) == [(f"/{field}", "invalid_time")]


@pytest.mark.req("R18")
def test_times_must_make_sense_together():
    ahead = "2028-01-01T00:00:00Z"
    assert mistakes({"to": "a", "send_at": ahead}) == [("/send_at", "too_far")]
    assert mistakes({"to": "a", "expires_at": "2026-06-01T12:00:00Z"}) == [("/expires_at", "in_the_past")]
    both = {"to": "a", "send_at": "2026-06-02T00:00:00Z", "expires_at": "2026-06-02T00:00:00Z"}
    assert mistakes(both) == [("/expires_at", "before_send_at")]


def test_a_year_ahead_is_near_enough():
    limit = parse_moment("2027-06-02T12:00:00Z")
    assert limit == NOW + SEND_AT_LIMIT_US
    assert take({"to": "a", "send_at": "2027-06-02T12:00:00Z"}).slices[HOME].schedule.send_at_us == limit


# ---------------------------------------------------------------- texts, links, data


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"title": "a\x00"}, "/title", "invalid_text"),
        ({"body": "\ud83d"}, "/body", "invalid_text"),
        ({"collapse_key": "\x00"}, "/collapse_key", "invalid_text"),
        ({"digest_key": "\udfff"}, "/digest_key", "invalid_text"),
        ({"actions": [{"title": "\x00", "url": "/x"}]}, "/actions/0/title", "invalid_text"),
        ({"url": "javascript:alert(1)"}, "/url", "invalid_url"),
        ({"icon": "data:image/png;base64,x"}, "/icon", "invalid_url"),
        (
            {"actions": [{"title": "x", "url": "/x"}, {"title": "x", "url": "vbscript:x"}]},
            "/actions/1/url",
            "invalid_url",
        ),
        ({"url": "https://x\x00"}, "/url", "invalid_url"),
        ({"to": {"id": "a", "email": "nobody"}}, "/to/email", "invalid_email"),
        ({"to": ["b", {"id": "a", "phone": "911"}]}, "/to/1/phone", "invalid_phone"),
        ({"to": {"id": "a", "timezone": "Mars/Base"}}, "/to/timezone", "unknown_timezone"),
        ({"to": {"id": "a", "locale": "no_NO"}}, "/to/locale", "invalid_locale"),
        ({"to": {"id": "a", "name": "\x00"}}, "/to/name", "invalid_text"),
    ],
)
def test_texts_and_links_that_cannot_be_kept_or_would_harm(body, pointer, code):
    refused = refusal({"to": "a"} | body)
    assert [(error.pointer, error.code) for error in refused.errors] == [(pointer, code)]
    assert refused.code == "invalid_event"


@pytest.mark.req("R35")
def test_data_that_cannot_be_kept():
    refused = refusal({"to": "a", "data": {"x": [{"y": "\x00"}]}})
    assert refused.code == "invalid_data"
    assert [(error.pointer, error.code) for error in refused.errors] == [("/data/x/0/y", "invalid_text")]
    assert mistakes({"to": "a", "data": {"n": 2**70}}) == [("/data/n", "number_too_large")]
    deep = {}
    for _ in range(40):
        deep = {"d": deep}
    assert mistakes({"to": "a", "data": deep})[0][1] == "too_deep"


@pytest.mark.req("R35")
def test_what_was_admitted_can_be_queued():
    data = {"n": [2**64 - 1, -(2**63), 1.5, None, True], "🎉": "\u2028\ufeff", "nest": [[[[{}]]]]}
    [part] = take({"to": "a", "data": data, "title": "🎉" * 1000}).slices.values()
    assert decode_slice(encode_slice(part)) == part


def test_empty_links_count_as_none():
    assert take({"to": "a", "url": "", "icon": ""}).event.url is None


def test_many_mistakes_are_told_at_once_and_the_first_in_words():
    body = {
        "to": [{"id": "a", "email": "x"}],
        "url": "javascript:x",
        "data": {"x": "\x00"},
        "send_at": "tomorrow",
        "expires_at": "1999-01-01T00:00:00Z",
    }
    refused = refusal(body)
    pointers = [error.pointer for error in refused.errors]
    assert pointers == ["/to/0/email", "/url", "/data/x", "/send_at", "/expires_at"]
    assert "e-mail" in refused.detail


# ---------------------------------------------------------------- types and schemas

PAID = TypeVersion(
    "order.paid",
    3,
    TypeDefinition(
        category="orders",
        channels={},
        schema={
            "type": "object",
            "required": ["number"],
            "properties": {"number": {"type": "integer"}, "items": {"items": {"required": ["name"]}}},
        },
    ),
)


@pytest.mark.req("R14")
def test_an_unknown_type_is_told_as_such_with_the_other_mistakes():
    refused = refusal({"to": "a", "type": "nosuch", "url": "javascript:x"}, None)
    assert refused.code == "unknown_type"
    assert [error.pointer for error in refused.errors] == ["/type", "/url"]


@pytest.mark.req("R14")
def test_data_is_checked_against_the_types_schema():
    assert take({"to": "a", "type": "order.paid", "data": {"number": 7}}, PAID).event.data == {"number": 7}
    refused = refusal({"to": "a", "type": "order.paid", "data": {"number": "7", "items": [{}]}}, PAID)
    assert refused.code == "invalid_data"
    assert {error.pointer for error in refused.errors} == {"/data/number", "/data/items/0"}
    assert mistakes({"to": "a", "type": "order.paid"}, PAID) == [("/data", "schema_required")]


def test_channels_are_kept_once_and_in_order():
    assert take({"to": "a", "channels": ["email", "in_app", "email"]}).event.channels == (
        Channel.EMAIL,
        Channel.IN_APP,
    )
