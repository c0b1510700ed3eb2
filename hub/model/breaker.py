"""A circuit breaker: takes a provider out that does not work, and lets it back after a trial.

Pure: the caller says what time it is. Closed: everything goes. Open: nothing does, for a pause that doubles with each
failed trial. Half-open: the pause is over, one message at a time tries; its success closes the breaker.
"""

from dataclasses import dataclass
from typing import Final

FAULTS: Final = 5  # in a row
FIRST_PAUSE_US: Final = 5_000_000
LONGEST_PAUSE_US: Final = 300_000_000
TRIAL_US: Final = 60_000_000  # a trial that does not come back is given up
LOOK_AGAIN_US: Final = 2_000_000  # trials are over long before that, mostly


@dataclass(slots=True)
class Breaker:
    """The state of one provider in one process. Moments are microseconds."""

    faults: int = 0
    pause_us: int = 0  # 0: closed
    open_until_us: int = 0
    trial_until_us: int = 0

    @property
    def is_open(self) -> bool:
        """Whether the provider is taken out (also while a trial runs)."""
        return self.pause_us > 0

    def allows(self, now_us: int) -> bool:
        """Whether a message may be given to the provider now. When open and due, the caller's is the trial."""
        if not self.is_open:
            return True
        if now_us < self.open_until_us or now_us < self.trial_until_us:
            return False
        self.trial_until_us = now_us + TRIAL_US
        return True

    def opens_at_us(self, now_us: int) -> int:
        """The next moment at which it is worth asking: the end of the pause, or soon while a trial runs."""
        if not self.is_open:
            return now_us
        if now_us < self.trial_until_us:
            return min(self.trial_until_us, now_us + LOOK_AGAIN_US)
        return max(self.open_until_us, now_us)

    def worked(self) -> bool:
        """The provider answered as it should. True: that closed the breaker."""
        was_open = self.is_open
        self.faults = self.pause_us = self.open_until_us = self.trial_until_us = 0
        return was_open

    def failed(self, now_us: int) -> bool:
        """The provider did not work. True: that opened the breaker."""
        self.faults += 1
        self.trial_until_us = 0
        if self.is_open:
            if now_us >= self.open_until_us:  # a trial, or one that was on its way
                self.pause_us = min(self.pause_us * 2, LONGEST_PAUSE_US)
                self.open_until_us = now_us + self.pause_us
            return False
        if self.faults < FAULTS:
            return False
        self.pause_us = FIRST_PAUSE_US
        self.open_until_us = now_us + self.pause_us
        return True
