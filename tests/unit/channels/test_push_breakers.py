"""The breaker of a push service: opens after failures in a row, lets one try, and closes with the first success."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.channels.push_breakers import FAILURES, ORIGINS, PAUSES_SECONDS, TRIAL_SECONDS, Breakers

pytestmark = pytest.mark.req("I9")
SECOND_US = 1_000_000


def opened(now_us: int = 0) -> Breakers:
    breakers = Breakers()
    said = [breakers.failed("https://a", now_us) for _ in range(FAILURES)]
    assert said == [False] * (FAILURES - 1) + [True]
    return breakers


def test_it_opens_after_failures_in_a_row_and_for_its_own_service_only() -> None:
    breakers = opened()
    assert breakers.wait_seconds("https://a", 0) == PAUSES_SECONDS[0]
    assert breakers.wait_seconds("https://b", 0) is None


def test_a_success_in_between_begins_anew() -> None:
    breakers = Breakers()
    for _ in range(3):
        for _ in range(FAILURES - 1):
            breakers.failed("https://a", 0)
        assert breakers.wait_seconds("https://a", 0) is None
        breakers.worked("https://a")


def test_one_tries_for_all_and_a_trial_that_is_lost_does_not_close_it_for_ever() -> None:
    breakers = opened()
    now_us = PAUSES_SECONDS[0] * SECOND_US
    assert breakers.wait_seconds("https://a", now_us) is None
    assert breakers.wait_seconds("https://a", now_us) == TRIAL_SECONDS
    assert breakers.wait_seconds("https://a", now_us + TRIAL_SECONDS * SECOND_US) is None


def test_pauses_grow_to_a_bound_and_it_is_told_once() -> None:
    breakers = opened()
    for pause in (*PAUSES_SECONDS[1:], PAUSES_SECONDS[-1]):
        assert not breakers.failed("https://a", 0)
        assert breakers.wait_seconds("https://a", 0) == pause


@given(st.lists(st.integers(0, 2000), max_size=3000))
def test_however_many_services_somebody_invents_memory_is_bounded(numbers: list[int]) -> None:
    breakers = Breakers()
    for number in numbers:
        breakers.failed(f"https://{number}.push.apple.com", 0)
    assert len(breakers._by_origin) <= ORIGINS
