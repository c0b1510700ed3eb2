"""The breaker: a provider that does not work is left alone, tried now and then, and let back by one success."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.model.breaker import FAULTS, FIRST_PAUSE_US, LONGEST_PAUSE_US, LOOK_AGAIN_US, TRIAL_US, Breaker

pytestmark = pytest.mark.req("I9")


def opened(now_us: int = 0) -> Breaker:
    breaker = Breaker()
    assert [breaker.failed(now_us) for _ in range(FAULTS)] == [False] * (FAULTS - 1) + [True]
    return breaker


def test_a_few_faults_change_nothing() -> None:
    breaker = Breaker()
    for _ in range(FAULTS - 1):
        breaker.failed(0)
    assert breaker.allows(0)
    assert not breaker.worked()
    breaker.failed(0)
    assert breaker.allows(0)  # they have to come in a row


def test_when_open_nothing_goes_until_the_pause_is_over() -> None:
    breaker = opened()
    assert breaker.is_open
    assert not breaker.allows(FIRST_PAUSE_US - 1)
    assert breaker.opens_at_us(1) == FIRST_PAUSE_US


def test_one_message_tries_and_its_success_closes_it() -> None:
    breaker = opened()
    assert breaker.allows(FIRST_PAUSE_US)
    assert not breaker.allows(FIRST_PAUSE_US)  # one at a time
    assert breaker.worked()
    assert breaker.allows(FIRST_PAUSE_US)
    assert not breaker.is_open


def test_a_failed_trial_doubles_the_pause_up_to_a_bound() -> None:
    breaker = opened()
    now_us, pauses = 0, []
    for _ in range(12):
        now_us = breaker.opens_at_us(now_us)
        assert breaker.allows(now_us)
        breaker.failed(now_us)
        pauses.append(breaker.opens_at_us(now_us) - now_us)
    assert pauses[0] == 2 * FIRST_PAUSE_US
    assert pauses[-1] == LONGEST_PAUSE_US


def test_whoever_comes_during_a_trial_waits_for_its_end_and_not_for_its_bound() -> None:
    breaker = opened()
    assert breaker.allows(FIRST_PAUSE_US)
    assert breaker.opens_at_us(FIRST_PAUSE_US) == FIRST_PAUSE_US + LOOK_AGAIN_US
    last_us = FIRST_PAUSE_US + TRIAL_US - 1
    assert breaker.opens_at_us(last_us) == last_us + 1


def test_a_trial_that_never_comes_back_does_not_keep_it_shut() -> None:
    breaker = opened()
    assert breaker.allows(FIRST_PAUSE_US)
    assert breaker.allows(FIRST_PAUSE_US + TRIAL_US)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 400_000_000)), max_size=100))
def test_it_never_stays_shut_for_longer_than_its_bound(steps: list[tuple[bool, int]]) -> None:
    breaker, now_us = Breaker(), 0
    for works, passes_us in steps:
        now_us += passes_us
        if breaker.allows(now_us):
            breaker.worked() if works else breaker.failed(now_us)
        assert breaker.opens_at_us(now_us) - now_us <= max(LONGEST_PAUSE_US, TRIAL_US)
