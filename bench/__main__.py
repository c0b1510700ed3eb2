"""Publish throughput, as a ratio to the least that could keep the same promise on the same machine.

The baseline is a bare Starlette application that appends each request's body to a Valkey with `appendfsync always`
before it answers 202. Clarion authenticates, validates, deduplicates and cuts into slices on top of that, while its
generator works the events off beside it. Both are driven by the same client, one after the other; absolute numbers
depend on the machine; compare ratios, and only those of an idle one.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hub import children
from hub.children import Launch
from hub.supervisor import free_port, http_ready
from hub.wiring import embedded_redis

SECONDS = 5.0
CONNECTIONS = 32
BATCH = 100
KEY = "bench-key-0123456789abcdef"
BASELINE = """
import os, uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
redis = Redis.from_url(os.environ["CLARION_REDIS_URL"])
async def publish(request):
    entry = await redis.xadd("bench", {"event": await request.body()})
    return JSONResponse({"id": entry.decode(), "status": "accepted"}, 202)
async def ready(request):
    return JSONResponse({})
app = Starlette(routes=[Route("/v1/events", publish, methods=["POST"]), Route("/readyz", ready)])
uvicorn.run(app, host="127.0.0.1", port=int(os.environ["CLARION_PORT"]), log_level="error", access_log=False)
"""


def event(number: int) -> dict[str, object]:
    return {
        "type": "message",
        "to": f"user-{number % 1000}",
        "title": "Paid",
        "body": f"Order {number} is paid",
    }


async def drive(port: int, path: str, body: Callable[[int], bytes]) -> tuple[float, list[float]]:
    """Post over kept connections for a while; requests per second and the sorted latencies in seconds."""
    latencies: list[float] = []
    until = time.perf_counter() + SECONDS

    async def client(offset: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        number = offset
        while (began := time.perf_counter()) < until:
            content = body(number)
            head = (
                f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {KEY}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
            )
            writer.write(head.encode() + content)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in answer.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            )
            text = await reader.readexactly(length)
            if b" 202 " not in answer[:16]:
                raise SystemExit(f"bench: {path} answered {answer[:40]!r} {text[:200]!r}")
            latencies.append(time.perf_counter() - began)
            number += CONNECTIONS
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(CONNECTIONS)))
    return len(latencies) / (time.perf_counter() - began), sorted(latencies)


async def served(
    launch: Launch, port: int, path: str, body: Callable[[int], bytes]
) -> tuple[float, list[float]]:
    """Run a server, measure, stop it."""
    with tempfile.TemporaryFile() as log:
        process = await children.spawn(launch, log)
        try:
            ready = http_ready("127.0.0.1", port)
            while not await ready():
                if process.returncode is not None:
                    log.seek(0)
                    raise SystemExit(
                        f"bench: the server did not start: {log.read().decode(errors='replace')}"
                    )
                await asyncio.sleep(0.05)
            return await drive(port, path, body)
        finally:
            await children.stop(process, 20)


async def main() -> None:
    def one(number: int) -> bytes:
        return json.dumps(event(number)).encode()

    def many(number: int) -> bytes:
        return json.dumps([event(number * BATCH + index) for index in range(BATCH)]).encode()

    with tempfile.TemporaryDirectory(prefix="clarion-bench-") as folder:
        port = free_port()
        env = {
            "CLARION_PORT": str(port), "CLARION_API_KEY": KEY, "CLARION_LOG_LEVEL": "error", "CLARION_LOG_FORMAT": "json",
            "CLARION_QUEUE_LIMIT": "1000000000", "PYTHONPATH": str(Path.cwd()),
        }  # fmt: skip

        from hub.config import load_settings

        async with embedded_redis(load_settings(data_dir=Path(folder) / "baseline")) as valkey:
            bare = Launch((sys.executable, "-c", BASELINE), {**env, "CLARION_REDIS_URL": valkey.url})
            baseline, baseline_latencies = await served(bare, port, "/v1/events", one)
        own = Launch((sys.executable, "-m", "hub", "up"), {**env, "CLARION_DATA_DIR": f"{folder}/one"})
        single, latencies = await served(own, port, "/v1/events", one)
        own = Launch((sys.executable, "-m", "hub", "up"), {**env, "CLARION_DATA_DIR": f"{folder}/many"})
        batches, _ = await served(own, port, "/v1/events/batch", many)

    print(f"\n{'':34}{'events/s':>10}{'ratio':>8}{'p50 ms':>9}{'p99 ms':>9}")
    for name, rate, times in (
        ("bare Starlette + durable XADD", baseline, baseline_latencies),
        ("POST /v1/events", single, latencies),
    ):
        p50, p99 = times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000
        print(f"{name:34}{rate:10.0f}{rate / baseline:8.2f}{p50:9.1f}{p99:9.1f}")
    print(
        f"{f'POST /v1/events/batch, {BATCH} each':34}{batches * BATCH:10.0f}{batches * BATCH / baseline:8.2f}"
    )


if __name__ == "__main__":
    asyncio.run(main())
