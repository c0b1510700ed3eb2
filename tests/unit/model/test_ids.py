"""Event ids: they sort by time, and a made-up one is told from ours."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.model.ids import EventIds, delivery_id
from hub.model.notifications import notification_id
from hub.model.vocabulary import Channel

IDS = EventIds(b"a key of this deployment")
MOMENTS = st.integers(0, 2**56 - 1)


@given(MOMENTS, MOMENTS, st.binary(min_size=6, max_size=12), st.binary(min_size=6, max_size=12))
def test_ids_sort_by_time_and_tell_it(first, second, one, other):
    earlier, later = sorted([first, second])
    ids = IDS.new(earlier, one), IDS.new(later, other)
    assert IDS.accepted_at_us(ids[0]) == earlier
    assert IDS.is_ours(ids[0])
    if earlier < later:
        assert ids[0] < ids[1]


@given(
    MOMENTS,
    st.binary(min_size=6, max_size=6),
    st.integers(4, 29),
    st.sampled_from("0123456789abcdefghjkmnpqrstvwxyz"),
)
def test_one_changed_digit_is_noticed(moment, random, place, digit):
    ours = IDS.new(moment, random)
    forged = ours[:place] + digit + ours[place + 1 :]
    assert IDS.is_ours(forged) == (forged == ours)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "evt_",
        "evt_0",
        "ntf_" + "0" * 26,
        "evt_" + "0" * 26,
        "evt_" + "u" * 26,
        "evt_" + "0" * 27,
        "key:x",
        "evt_é",
    ],
)
def test_what_never_was_an_id_is_not_ours(text):
    assert not IDS.is_ours(text)
    with pytest.raises(ValueError, match="not an event id"):
        IDS.accepted_at_us(text)


def test_another_key_does_not_know_our_ids():
    ours = IDS.new(1_700_000_000_000_000, b"random")
    assert not EventIds(b"another key").is_ours(ours)
    assert not IDS.is_ours(ours + "\n")
    assert not IDS.is_ours(ours.upper())


def test_an_id_needs_randomness():
    with pytest.raises(ValueError, match="6 random bytes"):
        IDS.new(0, b"abc")


@given(st.integers(0, 2**46), st.integers(0, 2**24 - 2))
def test_an_ingest_entry_always_has_the_same_id_and_entries_sort_like_their_ids(ms, seq):
    same = IDS.for_ingest(ms, seq)
    following = IDS.for_ingest(ms, seq + 1)
    assert same == IDS.for_ingest(ms, seq)
    assert IDS.is_ours(same)
    assert same < following
    assert following < IDS.for_ingest(ms + 1, 0)


def test_absurd_entry_ids_of_publishers_still_get_distinct_ids():
    absurd = {IDS.for_ingest(2**64 - 1 - late, seq) for late in (0, 1) for seq in (0, 1, 2**24, 2**64 - 1)}
    assert len(absurd) == 8
    assert all(IDS.is_ours(id_) for id_ in absurd)


def test_ids_use_digits_that_people_do_not_confuse():
    body = IDS.new(1_700_000_000_000_000, b"\xff" * 6).removeprefix("evt_")
    assert len(body) == 26
    assert set(body) <= set(string.digits + string.ascii_lowercase) - set("ilou")


def test_deliveries_are_named_after_notification_and_channel():
    notification = notification_id(IDS.new(1, b"random"), "alice")
    ids = {delivery_id(notification, channel) for channel in Channel}
    ids |= {delivery_id(notification, Channel.EMAIL, user) for user in ("alice", "bob")}
    assert len(ids) == len(Channel) + 2
    assert all(id_.startswith("dlv_") for id_ in ids)
    assert delivery_id(notification, Channel.EMAIL) == delivery_id(notification, Channel.EMAIL)


@given(MOMENTS, st.binary(min_size=6, max_size=6), st.integers(0, 1000))
def test_ids_of_a_batch_are_ours_differ_and_keep_its_order(moment, random, count):
    ids = IDS.several(moment, random, count)
    assert ids == sorted(set(ids))
    assert len(ids) == count
    assert all(IDS.is_ours(one) and IDS.accepted_at_us(one) == moment for one in ids)


def test_a_batch_has_no_more_ids_than_two_digits_tell_apart():
    with pytest.raises(ValueError, match="at most 1024"):
        IDS.several(0, b"random", 1025)
