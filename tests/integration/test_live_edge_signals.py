"""A node as a process: it serves on either event loop, and a signal ends it in order, with status 0."""

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.live_node import make_token
from tests.support.raw_client import RawStream, RawWebSocket

ROOT = Path(__file__).parents[2]


@pytest.mark.req("I15")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_with_status_0(loop, number):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.live_process", loop, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = int(await asyncio.wait_for(process.stdout.readline(), 20))
        sockets = [await RawWebSocket.connect(port) for _ in range(10)]
        for client in sockets:
            await client.login(make_token("alice"))
        streams = [await RawStream.open(port, Authorization=f"Bearer {make_token('bob')}") for _ in range(10)]
        for stream in streams:
            assert (await stream.event())[0] == "ready"
        started = time.monotonic()
        process.send_signal(number)
        assert {await client.closed() for client in sockets} == {(3001, "shutdown")}
        for stream in streams:
            assert (await stream.event())[1] == {"kind": "reconnect", "reason": "shutdown"}
            assert (await stream.event())[0] == ""
            assert stream.is_over
        assert await asyncio.wait_for(process.wait(), 5) == 0
        print(f"ended after {time.monotonic() - started:.2f} s")
        assert (await process.stdout.read()).decode() == "left 20\n"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
