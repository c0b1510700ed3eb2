"""Pages of a channel's history, as Centrifuge clients ask for them."""

from collections.abc import Callable
from typing import Final, TypeVar

from hub.errors import Refused
from hub.live.channels import Channel, Held
from hub.live.seam import Frame, Joined, StreamPosition

MOST: Final = 300

E = TypeVar("E", bound=Held)


async def page(
    channel: Channel[E],
    limit: int,
    since: StreamPosition | None,
    reverse: bool,
    frame_of: Callable[[E], Frame | None],
) -> Joined:
    """Up to `limit` publications (negative: as many as allowed; 0: the position alone) that `frame_of` lets through.

    Forward strictly after `since`, in reverse strictly before it and newest first. In another epoch than the asked one
    there are none: compare it. Raises `Refused(400)`, `BusUnavailable`.
    """
    if reverse and since is not None and since.offset == 0:
        raise Refused(400, "bad_request", "Nothing is before the first publication.")
    await channel.ready()
    epoch, top = channel.epoch, channel.last
    if limit == 0 or (since is not None and since.epoch not in ("", epoch)):
        return Joined(channel.name, epoch, top)
    held = await channel.held()
    if channel.epoch != epoch:
        return Joined(channel.name, channel.epoch, channel.last)
    if reverse:
        held.reverse()
    found: list[Frame] = []
    for entry in held:
        if since is not None and (entry.offset >= since.offset if reverse else entry.offset <= since.offset):
            continue
        frame = frame_of(entry) if entry.offset <= top else None
        if frame is not None:
            found.append(frame)
            if len(found) == (MOST if limit < 0 else min(limit, MOST)):
                break
    return Joined(channel.name, epoch, top, missed=found)
