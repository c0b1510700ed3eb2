"""What senders read and write: deliveries that are due, claims on them, and what became of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from hub.model.deliveries import Delivery
from hub.model.events import Event
from hub.model.notifications import Content
from hub.model.outgoing import Target
from hub.model.retries import Move
from hub.model.users import Profile, User
from hub.model.vocabulary import Channel
from hub.ports.rows import LogEntry


class Due(NamedTuple):
    """A delivery that is to be handed to a sender. `lapses`: how many processes died under it.

    Those of a digest have one user and key.
    """

    user_id: str
    id: str
    lapses: int
    digest_key: str | None


class Wanted(NamedTuple):
    """A delivery that a sender was told of, and how many processes had died under it then."""

    user_id: str
    id: str
    lapses: int = 0


class Claimed(Struct, frozen=True):
    """A claimed delivery with all that is known of it at that moment.

    `content`: as the app shows it, in the user's language; None when its notification is gone. `targets`: per channel,
    without suppressed ones. `hidden`: why its notification is not shown any more. `event` is None when it is not kept.
    """

    delivery: Delivery
    user: User
    content: Content | None
    event: Event | None
    actor: Profile | None = None
    targets: Mapping[Channel, tuple[Target, ...]] = {}
    suppressed: frozenset[Channel] = frozenset()
    hidden: str | None = None
    reached_at_us: int | None = None
    seen_at_us: int | None = None
    is_broadcast: bool = False


class Begin(NamedTuple):
    """An attempt of a claimed delivery is about to begin: `queued → sending`."""

    claim: str
    user_id: str
    id: str
    at_us: int


class Attempt(Struct, frozen=True):
    """One try by one provider. `number`: the round, in which each provider is asked once at most."""

    number: int
    provider: str
    outcome: str  # sent, retry, gave_up, unclear
    code: str
    detail: str
    started_at_us: int
    duration_us: int
    is_repeat: bool = False


class End(Struct, frozen=True):
    """What became of a claimed delivery. `was`: the state it leaves, `sending` or (nothing was tried) `queued`.

    `gone`: targets that must not be used again, `detail`: why, in a
    sentence. `fallback`: the delivery that takes over. `log`: written if this holds.
    """

    claim: str
    delivery: Delivery
    move: Move
    at_us: int
    was: str = "sending"
    provider: str | None = None
    reference: str | None = None
    served: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    gone: tuple[Target, ...] = ()
    detail: str | None = None
    fallback: Delivery | None = None
    log: tuple[LogEntry, ...] = ()


class SendingStore(Protocol):
    """Claims and moves of deliveries. All claims are on the database's clock.

    A claim is fenced: past its end, nothing that its owner records counts, and `recover` gives its deliveries to others.
    """

    async def next_due(self, channels: Sequence[Channel]) -> dict[Channel, int]:
        """Per channel the earliest moment (µs) at which a waiting delivery is due that nobody was told of."""
        ...

    async def queue_due(
        self, channel: Channel, limit: int, kick_seconds: float, *, careful: bool = True
    ) -> list[Due]:
        """Move up to `limit` due deliveries to `queued`, oldest first, with all that is held for their digests.

        They are handed out again after `kick_seconds`, in case whoever is told of them never comes to claim them.
        Those that had a process die under them are not among these: with `careful`, one chunk of them is added
        (`hub.model.sending.together`). Let no second one run beside it, so that the next death has one cause.
        """
        ...

    async def claim(
        self, claim: str, owner: str, wanted: Sequence[Wanted], ttl_seconds: float
    ) -> list[Claimed]:
        """Take those that are `queued` and nobody's; all that is needed to send them.

        Whoever had another process die under it since it was handed out is not taken: it goes with others now.
        """
        ...

    async def renew_claims(self, claims: Sequence[str], ttl_seconds: float) -> set[str]:
        """Extend those that are still ours; returns them."""
        ...

    async def release_claim(self, claim: str) -> None:
        """Give back what was not begun: due at once, for others. What was begun and not ended lapses at once."""
        ...

    async def record(self, begins: Sequence[Begin], ends: Sequence[End]) -> set[str]:
        """Write what happened, in one transaction; returns the ids of the deliveries whose move held.

        A move holds only while its claim does and its delivery is in the state that it leaves. With an end go its
        attempts, its log lines and counters, its fallback, and the targets that are gone.
        """
        ...

    async def recover(self, repeating: Sequence[Channel]) -> list[LogEntry]:
        """End claims that lapsed. What was not begun is due again; so is what was, on `repeating` channels, marked.

        On other channels it becomes `unknown`. `lapses` counts for what was on its way; when nothing of
        a channel was, for all that the process had of it. A delivery that lapsed `LAPSES` times is `dead` (`kills_senders`).
        """
        ...
