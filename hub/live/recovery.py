"""What a client missed, as far as one answer may carry it.

Beyond the limit a channel counts as not recovered: the client is told and refetches, and no answer grows without bound.
"""

from hub.live.centrifuge import replies
from hub.live.seam import Joined


def bounded(joined: list[Joined], limit_bytes: int) -> list[replies.Subscription]:
    """The subscriptions of a join. What was missed beyond the limit counts as unrecoverable, so memory stays bounded."""
    subscriptions = []
    for one in joined:
        size = sum(len(frame.payload) for frame in one.missed)
        if size > limit_bytes:
            subscriptions.append(replies.Subscription(one.channel, one.epoch, one.missed[-1].offset, True))
            continue
        limit_bytes -= size
        publications = [(frame.offset, frame.payload) for frame in one.missed]
        subscriptions.append(
            replies.Subscription(
                one.channel, one.epoch, one.offset, one.was_recovering, one.recovered, publications
            )
        )
    return subscriptions
