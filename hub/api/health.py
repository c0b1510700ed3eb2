"""What operators and their machines ask: does it live, can it serve, what does it count."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final

import httpx2
from msgspec import Struct

from hub.api.models import Health
from hub.api.parts import Parts
from hub.api.routing import Call, Reply, Route
from hub.errors import ClarionError
from hub.shared_port import DEPLOYMENT_HEADER

CHECK_SECONDS: Final = 2.0


class MetricsQuery(Struct, frozen=True):
    """`peers=false`: this process alone."""

    peers: bool = True


async def healthz(call: Call) -> Reply:
    """GET /healthz: this process answers, and says whose it is."""
    return Reply(Health("ok"), headers=((DEPLOYMENT_HEADER, call.parts.deployment.encode()),))


async def readyz(call: Call) -> Reply:
    """GET /readyz: what this node needs is there, or what is not."""
    problems = await find_problems(call.parts)
    durability = call.parts.durability
    if problems:
        return Reply(Health("unavailable", problems, durability), 503)
    return Reply(Health("degraded" if durability == "weak" else "ok", [], durability))


async def find_problems(parts: Parts) -> list[str]:
    """Sentences about everything that keeps this node from serving."""
    checks: list[tuple[str, Awaitable[object]]] = [
        ("The database", parts.store.ping()),
        ("The event queue", parts.queue.waiting()),
        ("The live bus", parts.bus.tops([])),
    ]
    found = await asyncio.gather(*(_problem_of(name, check) for name, check in checks))
    return [problem for problem in found if problem is not None]


async def _problem_of(name: str, check: Awaitable[object]) -> str | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check
    except TimeoutError:
        return f"{name} did not answer within {CHECK_SECONDS:g} s."
    except (ClarionError, OSError):
        return f"{name} cannot be reached."
    return None


async def metrics(call: Call) -> Reply:
    """GET /metrics: Prometheus' text; the queue's length is as of now, when Redis answers in time."""
    accept = call.headers.get(b"accept", b"").decode("latin-1")
    if not call.query_as(MetricsQuery).peers:
        text, media_type = call.parts.metrics.exposition(accept, alone=True)
        return Reply(text, media_type=media_type.encode())
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            call.parts.metrics.waiting(await call.parts.queue.waiting())
    except (TimeoutError, ClarionError, OSError):
        pass  # a scrape must work when a part is away, all the more then
    peers = await _peers(call.parts.settings.metrics_peers)
    text, media_type = call.parts.metrics.exposition(accept, peers)
    return Reply(text, media_type=media_type.encode())


async def _peers(addresses: Sequence[str]) -> list[str]:
    """The metrics of other processes; one that does not answer is left out."""
    if not addresses:
        return []
    async with httpx2.AsyncClient(timeout=CHECK_SECONDS, trust_env=False) as client:
        answers = await asyncio.gather(
            *(client.get(address) for address in addresses), return_exceptions=True
        )
    return [one.text for one in answers if isinstance(one, httpx2.Response) and one.is_success]


ROUTES = [
    Route("GET", "/healthz", healthz, ("open",), "The process lives", Health),
    Route(
        "GET", "/readyz", readyz, ("open",), "The node can serve, or why not", Health, other_statuses=(503,)
    ),
    Route("GET", "/metrics", metrics, ("open",), "Metrics for Prometheus", str, query=MetricsQuery),
]
