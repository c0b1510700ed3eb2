"""How a connection takes its place on its channels, with nothing lost, repeated or reordered.

A place is taken at one moment: what came before comes with the reply, or the client is told that it must refetch; what
comes after is held back for this wire until `release`. The rules are those of `protocols/centrifuge-json.md` §8.
"""

from typing import Any

from hub.errors import Refused
from hub.live.channels import Channel
from hub.live.fanout import Fanout
from hub.live.frames import PersonalFrame
from hub.live.registry import Seat, without
from hub.live.roster import Roster, tokens_valid_from_us
from hub.live.seam import Joined, StreamPosition
from hub.live.subscriptions import Subscriptions
from hub.model.vocabulary import BROADCASTS, personal_channel


class Joining:
    """Puts seats on channels."""

    def __init__(self, channels: Subscriptions, roster: Roster, fanout: Fanout) -> None:
        self._channels = channels
        self._roster = roster
        self._fanout = fanout

    async def join(self, seat: Seat, positions: dict[str, StreamPosition]) -> list[Joined]:
        """Both channels of a user. Raises `Refused(403)`, `BusUnavailable`, `StoreUnavailable`."""
        self._roster.need(seat.member)
        name = personal_channel(seat.member.user_id)
        personal = await self.enter(seat, name, positions.get(name))
        await self._roster.wait(seat.member)
        _check(seat)
        broadcasts = await self._enter_broadcasts(seat, positions.get(BROADCASTS))
        _check(seat)
        seat.replied = [f.report_id for f in (*personal.missed, *broadcasts.missed) if f.report_id]
        seat.joined = True
        return [personal, broadcasts]

    async def enter(self, seat: Seat, name: str, position: StreamPosition | None) -> Joined:
        """The personal channel or `log`. Give it back with `quit`, also when this raises."""
        channel = self._channels.acquire(name)
        seat.channels += (channel,)
        await _agree(channel, position)
        _check(seat)
        hold(seat, name)
        channel.seats += (seat,)
        epoch, top, losses = channel.epoch, channel.last, channel.losses
        if position is None:
            return Joined(name, epoch, top)
        missed = None
        if position.epoch in ("", epoch):
            missed = await channel.since(position.offset, top, epoch)
        if missed is None or channel.losses != losses:
            # Begin at this very moment; what was held since the first one lies before it.
            hold(seat, name)
            return Joined(name, channel.epoch, channel.last, was_recovering=True)
        return Joined(name, epoch, position.offset, was_recovering=True, recovered=True, missed=[*missed])

    def quit(self, seat: Seat, channel: Channel[PersonalFrame]) -> None:
        """Give a place back."""
        seat.channels = without(seat.channels, channel)
        channel.seats = without(channel.seats, seat)
        self._channels.release(channel)

    async def _enter_broadcasts(self, seat: Seat, position: StreamPosition | None) -> Joined:
        """`broadcasts`: of what was missed only what the user may see."""
        channel = self._channels.broadcasts
        await _agree(channel, position)
        _check(seat)
        hold(seat, BROADCASTS)
        seat.broadcasts_after = self._fanout.sequence
        epoch, top, losses = channel.epoch, channel.last, channel.losses
        if position is None:
            return Joined(BROADCASTS, epoch, top)
        entries = None
        if position.epoch in ("", epoch):
            entries = await channel.since(position.offset, top, epoch)
            await self._roster.wait(seat.member)
        if entries is None or channel.losses != losses:
            hold(seat, BROADCASTS)
            seat.broadcasts_after = self._fanout.sequence
            return Joined(BROADCASTS, channel.epoch, channel.last, was_recovering=True)
        missed = [frame for e in entries if (frame := self._fanout.frame_for(seat.member, e)) is not None]
        # Who may see none of them is at the top: otherwise a quiet client would fall behind what history holds.
        offset = position.offset if missed else top
        return Joined(BROADCASTS, epoch, offset, was_recovering=True, recovered=True, missed=missed)


def hold(seat: Seat, channel: str) -> None:
    """Hold back what is published on a channel from now on."""
    if seat.held is None:
        seat.held = {}
    seat.held[channel] = []


async def _agree(channel: Channel[Any], position: StreamPosition | None) -> None:
    """Open the channel. A client that knows more than this node is believed enough to look again."""
    fresh = await channel.ready(position.offset if position else None)
    if fresh or position is None:
        return
    if position.offset > channel.last or position.epoch not in ("", channel.epoch):
        await channel.check()


def _check(seat: Seat) -> None:
    if seat.left:
        raise Refused(503, "connection_closed", "The connection ended before it had joined.")
    user = seat.member.user
    if seat.revoked or (user and seat.wire.identity.issued_at_us < tokens_valid_from_us(user)):
        raise Refused(403, "token_revoked", "This token was revoked.")
