"""Retries: what becomes of a delivery after an attempt, by one schedule for each channel.

Pure. Pauses grow, with full jitter (a random part of the pause), so that what failed together does not come back
together. Attempts and age are bounded. Who has another channel to fall back to waits less long for this one.
"""

from typing import Final

from msgspec import Struct

from hub.model.outcomes import GiveUp, Outcome, RetryAfter, Sent
from hub.model.vocabulary import Channel

_SECOND_US: Final = 1_000_000


class Schedule(Struct, frozen=True):
    """The pauses between attempts (the last one repeats), their number, and how old a delivery may get.

    `fallback_seconds`: after so long without success the next channel takes over, if there is one.
    """

    pauses_seconds: tuple[float, ...]
    attempts: int
    max_age_seconds: int
    fallback_seconds: int


SCHEDULES: Final[dict[Channel, Schedule]] = {
    Channel.EMAIL: Schedule((2, 10, 60, 300, 900, 3600, 10_800), 12, 2 * 86_400, 60),
    Channel.SMS: Schedule((2, 10, 60, 300), 6, 4 * 3600, 60),
    Channel.WEB_PUSH: Schedule((1, 5, 30, 120, 600), 8, 86_400, 60),
    Channel.MOBILE_PUSH: Schedule((1, 5, 30, 120, 600), 8, 86_400, 60),
}


class Tried(Struct, frozen=True):
    """What is known of a delivery when an attempt ended. `attempts` includes it; `may_fall_back`: a channel is left."""

    channel: Channel
    attempts: int
    first_attempt_us: int
    now_us: int
    expires_at_us: int | None = None
    may_fall_back: bool = False
    repeats: bool = True  # whether a message that may have gone out is sent again


class Move(Struct, frozen=True):
    """The state to move to; with `failed` the moment of the next attempt."""

    state: str
    reason: str
    due_at_us: int | None = None


def after_attempt(outcome: Outcome, tried: Tried, jitter: float) -> Move:
    """The move that follows an attempt. `jitter`: a random number from 0 to 1."""
    match outcome:
        case Sent():
            return Move("sent", "sent")
        case GiveUp():
            return Move("dead", outcome.code)
        case RetryAfter():
            return _again(outcome.code, outcome.seconds, tried, jitter)
        case _:
            return (
                _again(outcome.code, None, tried, jitter) if tried.repeats else Move("unknown", outcome.code)
            )


def _again(code: str, asked_seconds: float | None, tried: Tried, jitter: float) -> Move:
    schedule = SCHEDULES[tried.channel]
    if tried.attempts >= schedule.attempts:
        return Move("dead", "exhausted")
    pauses = schedule.pauses_seconds
    pause = pauses[min(tried.attempts, len(pauses)) - 1] if tried.attempts else pauses[0]
    wait_seconds = max(pause * jitter, asked_seconds or 0.0)
    due_at_us = tried.now_us + round(wait_seconds * _SECOND_US)
    age = schedule.max_age_seconds
    if tried.may_fall_back:
        age = min(age, schedule.fallback_seconds)
    if due_at_us > tried.first_attempt_us + age * _SECOND_US:
        return Move("dead", "exhausted")
    if tried.expires_at_us is not None and due_at_us >= tried.expires_at_us:
        return Move("expired", code)
    return Move("failed", code, due_at_us)
