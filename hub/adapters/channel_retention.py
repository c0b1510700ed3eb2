"""How much of each live channel's history is kept, and for how long. Beyond it, clients are told to refetch."""

from dataclasses import dataclass
from typing import Final

from hub.model.vocabulary import BROADCASTS, LOG

_HOUR: Final = 3_600
_DAY: Final = 24 * _HOUR


@dataclass(frozen=True, slots=True)
class Retention:
    """The last `messages` for `seconds` after the newest; then offset and epoch for `silence_seconds` more."""

    messages: int
    seconds: int
    silence_seconds: int = 7 * _DAY

    @property
    def top_seconds(self) -> int:
        """How long offset, epoch and last position outlive the newest message."""
        return self.seconds + self.silence_seconds


PERSONAL_RETENTION: Final = Retention(100, _HOUR)
_SHARED: Final = {BROADCASTS: Retention(1_000, _DAY), LOG: Retention(200, _HOUR)}


def retention_of(channel: str) -> Retention:
    """The rule of one live channel."""
    return _SHARED.get(channel, PERSONAL_RETENTION)
