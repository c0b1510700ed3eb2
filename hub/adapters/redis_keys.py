"""Where things lie in Redis: the one place that knows the names of keys and channels.

Keys of one partition share its hash tag `{…}`. What kind of key it is stands before the part that users choose, so
that no user id can collide with another key.
"""

from hub.model.vocabulary import LANE, partition_of


class RedisKeys:
    """The key layout of one deployment (`prefix`) with a fixed number of partitions."""

    __slots__ = ("_partitions", "control", "ingest", "partitions", "prefix", "publish", "rejected")

    def __init__(self, prefix: str, partitions: int) -> None:
        self._partitions = partitions
        self.prefix = prefix
        self.partitions = (*(str(number) for number in range(partitions)), LANE)
        self.ingest = f"{prefix}:ingest"  # public: publishers XADD here
        self.rejected = f"{prefix}:ingest:rejected"
        self.publish = f"{prefix}:publish"  # public: publishers PUBLISH here
        self.control = f"{prefix}:control"

    def queue(self, partition: str) -> str:
        """The stream of one partition's waiting slices."""
        return f"{self.prefix}:{{{partition}}}:queue"

    def queue_total(self, partition: str) -> str:
        """How many slices were ever appended to a partition."""
        return f"{self.prefix}:{{{partition}}}:queue:total"

    def idempotency(self, key: str) -> str:
        """What an idempotency key (scoped to its API key) was used for."""
        return f"{self.prefix}:idempotency:{key}"

    def live(self, channel: str) -> str:
        """The history list of a live channel, and the pub/sub channel of the same name."""
        return self.live_and_top(channel)[0]

    def top(self, channel: str) -> str:
        """Offset, epoch and last position of a live channel."""
        return self.live_and_top(channel)[1]

    def live_and_top(self, channel: str) -> tuple[str, str]:
        """Both keys of a live channel."""
        tag = f"{self.prefix}:{{{self._tag(channel)}}}"
        return f"{tag}:live:{channel}", f"{tag}:top:{channel}"

    def _tag(self, channel: str) -> str:
        if channel.startswith("#"):
            return str(partition_of(channel[1:], self._partitions))
        return LANE
