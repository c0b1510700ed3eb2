"""Retries: pauses grow and are spread, attempts and age are bounded, and who can fall back waits less."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.model.outcomes import GiveUp, RetryAfter, Sent, Unclear, joined
from hub.model.retries import SCHEDULES, Tried, after_attempt
from hub.model.vocabulary import Channel

pytestmark = [pytest.mark.req("R8"), pytest.mark.req("I8")]

NOW_US = 1_767_614_400_000_000
SECOND_US = 1_000_000
LATER = RetryAfter("451", "later")


def tried(attempts: int = 1, **more: object) -> Tried:
    fields: dict[str, object] = {
        "channel": Channel.EMAIL,
        "attempts": attempts,
        "first_attempt_us": NOW_US,
        "now_us": NOW_US,
    }
    return Tried(**(fields | more))  # type: ignore[arg-type]


def test_success_and_refusal_are_final() -> None:
    assert after_attempt(Sent("250"), tried(), 0.5).state == "sent"
    move = after_attempt(GiveUp("550", "no such user"), tried(), 0.5)
    assert (move.state, move.reason) == ("dead", "550")


def test_what_may_have_gone_out_is_repeated_only_where_that_is_wanted() -> None:
    assert after_attempt(Unclear("lost", "?"), tried(), 0.5).state == "failed"
    assert after_attempt(Unclear("lost", "?"), tried(repeats=False), 0.5).state == "unknown"


def test_the_pause_is_a_random_part_of_one_that_grows() -> None:
    whole = [after_attempt(LATER, tried(number), 1.0).due_at_us for number in range(1, 8)]
    pauses = [(due or 0) - NOW_US for due in whole]
    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[-1]
    half = after_attempt(LATER, tried(3), 0.5).due_at_us
    assert (half or 0) - NOW_US == pauses[2] // 2


def test_retry_after_is_honoured() -> None:
    move = after_attempt(RetryAfter("429", "slow down", 120.0), tried(), 0.0)
    assert move.due_at_us == NOW_US + 120 * SECOND_US


def test_attempts_and_age_are_bounded() -> None:
    schedule = SCHEDULES[Channel.EMAIL]
    assert after_attempt(LATER, tried(schedule.attempts - 1), 0.5).state == "failed"
    assert after_attempt(LATER, tried(schedule.attempts), 0.5).state == "dead"
    old = NOW_US - schedule.max_age_seconds * SECOND_US - 1
    assert after_attempt(LATER, tried(2, first_attempt_us=old), 0.5).state == "dead"


@pytest.mark.req("I9")
def test_who_can_fall_back_does_not_wait_for_days() -> None:
    since = NOW_US - SCHEDULES[Channel.EMAIL].fallback_seconds * SECOND_US - 1
    assert after_attempt(LATER, tried(2, first_attempt_us=since), 0.5).state == "failed"
    assert after_attempt(LATER, tried(2, first_attempt_us=since, may_fall_back=True), 0.5).state == "dead"


def test_nothing_is_tried_again_after_it_expired() -> None:
    move = after_attempt(LATER, tried(4, expires_at_us=NOW_US + 1), 1.0)
    assert move.state == "expired"


def test_one_browser_that_may_still_be_reached_keeps_the_delivery_alive() -> None:
    assert joined([Sent(), RetryAfter("503", "")]) == RetryAfter("503", "")
    assert joined([GiveUp("410", "", target_is_gone=True), Sent("201")]) == Sent("201")
    assert joined([GiveUp("410", ""), Unclear("lost", "")]) == Unclear("lost", "")
    assert joined([GiveUp("410", "")]) == GiveUp("410", "")


@given(
    channel=st.sampled_from(sorted(SCHEDULES)),
    jitters=st.lists(st.floats(0, 1), min_size=40, max_size=40),
    asked=st.lists(st.none() | st.floats(0, 100_000), min_size=40, max_size=40),
    may_fall_back=st.booleans(),
)
def test_every_delivery_ends_within_its_bounds(
    channel: Channel, jitters: list[float], asked: list[float | None], may_fall_back: bool
) -> None:
    schedule = SCHEDULES[channel]
    now_us = NOW_US
    for number, (jitter, seconds) in enumerate(zip(jitters, asked, strict=True), 1):
        state = tried(
            number, channel=channel, now_us=now_us, first_attempt_us=NOW_US, may_fall_back=may_fall_back
        )
        move = after_attempt(RetryAfter("x", "", seconds), state, jitter)
        if move.state != "failed":
            assert move.state == "dead"
            return
        assert number < schedule.attempts
        assert move.due_at_us is not None
        assert now_us <= move.due_at_us <= NOW_US + schedule.max_age_seconds * SECOND_US
        now_us = move.due_at_us
    raise AssertionError("it was tried for ever")
