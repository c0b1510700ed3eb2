"""Jobs on arq: chunks of deliveries on their way to senders. Only a kick: what a job carries stands in SQL.

Losing all jobs delays deliveries by `KICK_SECONDS`; a job that comes twice claims nothing the second time. A job of a
dead process is free again when its lease in Redis ends, since arq itself would keep it for its whole time limit.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from arq import Retry, Worker
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.constants import in_progress_key_prefix
from arq.worker import func
from redis.exceptions import RedisError

from hub.errors import ClarionError, QueueUnavailable
from hub.model.vocabulary import Channel
from hub.ports import Wanted

KICK_SECONDS: Final = 20.0  # jobs that are lost are made again after so long
POLL_SECONDS: Final = 0.05
CHUNKS: Final = 3  # of one channel in one process: one is worked on, one is being read, one waits
MAX_JOBS: Final = (CHUNKS + 1) * (len(Channel) - 1)  # with a careful one each: no channel is in another's way
CAREFUL: Final = "careful-"  # how names of chunks begin that go one at a time
LEASE_SECONDS: Final = 4.0
TIMEOUT_SECONDS: Final = 3600.0
# A job comes back from processes that died or have enough; SQL counts what is to be counted.
TRIES: Final = 1_000_000
ENOUGH_SECONDS: Final = 0.25  # a job that came to a process with enough of its channel is offered again

_FUNCTION: Final = "deliver"
_RENEW_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = (0.2, 0.5, 1.0, 2.0)

_log = logging.getLogger(__name__)
logging.getLogger("arq").setLevel(logging.WARNING)  # a line for each job would name users, and drown the rest
Deliveries = Sequence[Wanted]
Deliver = Callable[[Channel, Deliveries], Awaitable[None]]


def queue_name(prefix: str) -> str:
    """The sorted set in which arq keeps the ids of waiting and running jobs."""
    return f"{prefix}:jobs"


def _serialize(job: Mapping[str, Any]) -> bytes:
    return msgspec.msgpack.encode(job)


def _deserialize(raw: bytes) -> dict[str, Any]:
    return msgspec.msgpack.decode(raw, type=dict[str, Any])


class Outstanding:
    """What waits or is worked on: how many chunks per channel, and the channels with a careful one beside them."""

    def __init__(self, job_ids: Iterable[str] = ()) -> None:
        self.chunks: Counter[Channel] = Counter()
        self.careful: set[Channel] = set()
        for id_ in job_ids:
            channel, _, name = id_.partition(":")
            if name.startswith(CAREFUL):
                self.careful.add(Channel(channel))
            else:
                self.chunks[Channel(channel)] += 1


class Jobs:
    """Hands chunks of deliveries to whatever sender is free. Raises `QueueUnavailable` when Redis is away."""

    def __init__(self, url: str, prefix: str) -> None:
        self._settings = RedisSettings.from_dsn(url)
        self._settings.conn_retries = 0
        self._queue = queue_name(prefix)
        self._pool: ArqRedis | None = None

    async def pool(self) -> ArqRedis:
        """The connections, made at their first use."""
        if self._pool is None:
            try:
                self._pool = await create_pool(
                    self._settings,
                    job_serializer=_serialize,
                    job_deserializer=_deserialize,
                    default_queue_name=self._queue,
                )
            except (RedisError, OSError) as error:
                raise QueueUnavailable(f"Jobs cannot be handed out: {error}") from error
        return self._pool

    async def kick(self, channel: Channel, deliveries: Deliveries, name: str) -> None:
        """Hand out one chunk. `name` tells it from others."""
        pool = await self.pool()
        try:
            await pool.enqueue_job(
                _FUNCTION, channel.value, list(deliveries), _job_id=f"{channel.value}:{name}"
            )
        except (RedisError, OSError) as error:
            raise QueueUnavailable(f"Jobs cannot be handed out: {error}") from error

    async def outstanding(self) -> Outstanding:
        """What waits or is worked on."""
        pool = await self.pool()
        try:
            ids = await pool.zrange(self._queue, 0, -1)
        except (RedisError, OSError) as error:
            raise QueueUnavailable(f"Jobs cannot be counted: {error}") from error
        return Outstanding(id_.decode() for id_ in ids)

    async def close(self) -> None:
        """Let go of connections."""
        if self._pool is not None:
            await self._pool.aclose(close_connection_pool=True)


class JobRunner:
    """Runs the jobs of one process, through restarts of Redis, until it is stopped."""

    def __init__(self, url: str, prefix: str, deliver: Deliver) -> None:
        self._settings = RedisSettings.from_dsn(url)
        self._settings.conn_retries = 0
        self._queue = queue_name(prefix)
        self._deliver = deliver
        self._worker: Worker | None = None
        self._is_draining = False
        self._running: dict[str, asyncio.Task[Any] | None] = {}

    async def run(self) -> None:
        """Until cancelled. arq's worker ends whenever Redis does; then another one takes its place."""
        failures = 0
        while True:
            self._worker = self._make_worker()
            renewing = asyncio.create_task(self._keep_leases(), name="job-leases")
            try:
                await self._worker.async_run()
            except (RedisError, OSError) as error:
                _log.warning("Redis is away, jobs wait for it: %s", error)
            finally:
                renewing.cancel()
            await asyncio.sleep(_PAUSE_SECONDS[min(failures, len(_PAUSE_SECONDS) - 1)])
            failures += 1

    async def drain(self, seconds: float) -> None:
        """Take no more jobs, and wait so long for those that run."""
        self._is_draining = True
        if self._worker is not None:
            self._worker.allow_pick_jobs = False
        # Also those of a worker that ended with its Redis.
        if tasks := [task for task in self._running.values() if task is not None]:
            await asyncio.wait(tasks, timeout=seconds)

    def _make_worker(self) -> Worker:
        worker = Worker(
            functions=[func(self._run_job, name=_FUNCTION, keep_result=0, max_tries=TRIES)],  # type: ignore[arg-type]  # arq wants *args
            queue_name=self._queue,
            redis_settings=self._settings,
            handle_signals=False,
            max_jobs=MAX_JOBS,
            job_timeout=TIMEOUT_SECONDS,
            keep_result=0,
            poll_delay=POLL_SECONDS,
            health_check_interval=60,
            job_serializer=_serialize,
            job_deserializer=_deserialize,
            log_results=False,
            retry_jobs=True,
        )
        # arq would keep a dead process' job for its time limit; what lives renews its own below.
        worker.in_progress_timeout_s = LEASE_SECONDS
        worker.allow_pick_jobs = not self._is_draining
        return worker

    async def _run_job(
        self, context: dict[Any, Any], channel: str, deliveries: list[tuple[str, str, int]]
    ) -> None:
        """One chunk. No failure is raised: arq would keep the exception, and SQL knows what is left to do."""
        job_id = str(context["job_id"])
        if CAREFUL not in job_id and Outstanding(self._running).chunks[Channel(channel)] >= CHUNKS:
            raise Retry(defer=ENOUGH_SECONDS)  # another process has none, or we have room in a moment
        self._running[job_id] = asyncio.current_task()
        try:
            async with context["redis"].pipeline(transaction=False) as pipe:
                self._renew(pipe)
                await pipe.execute()
            await self._deliver(Channel(channel), [Wanted(*one) for one in deliveries])
        except (ClarionError, RedisError, OSError) as error:
            _log.warning("a chunk of %d deliveries waits: %s", len(deliveries), error)
        except Exception:  # noqa: BLE001 - logged; the sweep brings it again
            _log.exception("a chunk of %d deliveries failed", len(deliveries))
        finally:
            self._running.pop(job_id, None)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            pool = self._worker.pool if self._worker is not None and self._running else None
            if pool is None:
                continue
            try:
                async with pool.pipeline(transaction=False) as pipe:
                    self._renew(pipe)
                    await pipe.execute()
            except (RedisError, OSError) as error:
                _log.info("leases of jobs could not be renewed: %s", error)

    def _renew(self, pipe: Any) -> None:
        """Extend the leases of what runs.

        Until a lease ends its job is not due: each process would ask for every job that runs at every poll else.
        """
        milliseconds = round(LEASE_SECONDS * 1000)
        due_again = round(time.time_ns() / 1e6) + milliseconds
        pipe.zadd(self._queue, dict.fromkeys(self._running, due_again), xx=True)
        for job_id in self._running:
            pipe.pexpire(in_progress_key_prefix + job_id, milliseconds)
