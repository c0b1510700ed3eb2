"""`clarion up` in small: parts start in order, come back, and end with their parent."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from hub.children import Launch
from hub.errors import ConfigError
from hub.shared_port import ensure_port_free, held_port, refuse_strangers, require_sharing
from hub.supervisor import Part, PartFailed, Supervisor, http_ready
from tests.support.processes import eventually, is_alive

# Notes its pid, then waits; notes its end when it is asked to stop.
WORKER = """
import os, signal, sys, time
name, folder = sys.argv[1], sys.argv[2]
def stop(*_):
    open(folder + "/order", "a").write(name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
open(folder + "/" + name, "a").write(str(os.getpid()) + "\\n")
while True:
    time.sleep(60)
"""
STUBBORN = WORKER.replace("sys.exit(0)", "pass")


def part(name: str, folder: Path, stage: int = 1, code: str = WORKER, drain_seconds: float = 5.0) -> Part:
    started = len((folder / name).read_text().split()) if (folder / name).exists() else 0

    async def is_ready() -> bool:
        return (folder / name).exists() and len((folder / name).read_text().split()) > started

    command = (sys.executable, "-c", code, name, str(folder))
    return Part(name, lambda: Launch(command), is_ready, stage, drain_seconds)


def starts(folder: Path, name: str) -> list[int]:
    path = folder / name
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


@pytest.mark.req("R33")
async def test_parts_start_and_stop_in_order(tmp_path: Path) -> None:
    ready = asyncio.Event()
    seen: dict[str, int] = {}

    async def on_ready() -> None:
        seen.update(supervisor.pids())
        ready.set()

    parts = [part("node", tmp_path), part("valkey", tmp_path, stage=0), part("generator", tmp_path)]
    supervisor = Supervisor(tmp_path / "data", parts, on_ready)
    running = asyncio.create_task(supervisor.run())
    await ready.wait()
    assert seen.keys() == {"node", "valkey", "generator"}
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert not any(is_alive(pid) for pid in seen.values())
    order = (tmp_path / "order").read_text().split()
    assert sorted(order[:2]) == ["generator", "node"]
    assert order[2] == "valkey"


@pytest.mark.req("R27")
@pytest.mark.req("I10")
async def test_a_killed_part_comes_back(tmp_path: Path) -> None:
    names = ["valkey", "node", "generator"]
    supervisor = Supervisor(tmp_path / "data", [part(name, tmp_path) for name in names])
    running = asyncio.create_task(supervisor.run())
    await eventually(
        lambda: supervisor.pids().keys() == set(names) and all(starts(tmp_path, name) for name in names)
    )
    for name in names * 2:
        before = starts(tmp_path, name)
        os.kill(before[-1], signal.SIGKILL)
        await eventually(lambda name=name, before=before: len(starts(tmp_path, name)) > len(before))
    assert all(len(starts(tmp_path, name)) == 3 for name in names)
    supervisor.request_stop()
    await running


PARENT = """
import asyncio, sys
from pathlib import Path
from hub.children import Launch
from hub.supervisor import Part, Supervisor
folder, code = sys.argv[1:]
def command(name):
    return lambda: Launch((sys.executable, "-c", code, name, folder))
asyncio.run(Supervisor(Path(folder) / "data", [Part(name, command(name)) for name in ("a", "b")]).run())
"""


async def test_children_go_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, str(tmp_path), STUBBORN)
    await eventually(lambda: starts(tmp_path, "a") and starts(tmp_path, "b"))
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    await eventually(lambda: not any(is_alive(pid) for name in "ab" for pid in starts(tmp_path, name)))


async def test_a_second_one_on_the_folder_is_refused(tmp_path: Path) -> None:
    first = Supervisor(tmp_path / "data", [part("a", tmp_path)])
    running = asyncio.create_task(first.run())
    await eventually(first.pids)
    with pytest.raises(ConfigError, match=f"clarion up runs already .*process {os.getpid()}"):
        await Supervisor(tmp_path / "data", [part("b", tmp_path)]).run()
    first.request_stop()
    await running
    assert not starts(tmp_path, "b")


async def test_a_stubborn_part_is_killed_after_its_time(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "data", [part("a", tmp_path, code=STUBBORN, drain_seconds=0.2)])
    running = asyncio.create_task(supervisor.run())
    await eventually(lambda: starts(tmp_path, "a"))
    supervisor.request_stop()
    await running
    assert not is_alive(starts(tmp_path, "a")[0])


async def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "data", [part("a", tmp_path, code=STUBBORN, drain_seconds=60)])
    running = asyncio.create_task(supervisor.run())
    await eventually(lambda: starts(tmp_path, "a"))
    supervisor.request_stop()
    await eventually((tmp_path / "order").exists)
    supervisor.request_stop()
    await asyncio.wait_for(running, 5)


@pytest.mark.parametrize("code", [1, 2])
async def test_a_part_that_cannot_start_ends_the_start(tmp_path: Path, code: int) -> None:
    command = (
        sys.executable,
        "-c",
        f"open({str(tmp_path / 'tries')!r}, 'a').write('x'); raise SystemExit({code})",
    )

    async def never() -> bool:
        return False

    parts = [part("valkey", tmp_path, stage=0), Part("node", lambda: Launch(command), never)]
    with pytest.raises(PartFailed, match=f"the node did not start .exit code {code}.") as caught:
        await Supervisor(tmp_path / "data", parts).run()
    assert caught.value.exit_code == code
    assert len((tmp_path / "tries").read_text()) == (1 if code == 2 else 3)
    assert not is_alive(starts(tmp_path, "valkey")[0])


async def test_ports(free_port: int) -> None:
    ensure_port_free("127.0.0.1", free_port)
    taken = pytest.raises(ConfigError, match=f"CLARION_PORT is {free_port}, but something listens there")
    with socket.create_server(("127.0.0.1", free_port)), taken:
        ensure_port_free("127.0.0.1", free_port)
    with pytest.raises(ConfigError, match="CLARION_HOST"):
        ensure_port_free("203.0.113.7", free_port)
    with pytest.raises(ConfigError, match="CLARION_HOST"):
        ensure_port_free("no-such-host.invalid", free_port)


def listener(port: int, **options: bool) -> socket.socket:
    return socket.create_server(("127.0.0.1", port), **options)


async def test_a_held_port_is_for_those_who_share(free_port: int) -> None:
    taken = f"CLARION_PORT is {free_port}, but something listens there already"
    with held_port("127.0.0.1", free_port):
        with pytest.raises(ConfigError, match=taken), held_port("127.0.0.1", free_port):
            pass
        with pytest.raises(OSError, match="in use"):
            listener(free_port)
        with listener(free_port, reuse_port=True), listener(free_port, reuse_port=True):
            with pytest.raises(ConfigError, match=taken):
                ensure_port_free("127.0.0.1", free_port)
            with pytest.raises(OSError, match="in use"):
                listener(free_port)
    with held_port("127.0.0.1", free_port):
        pass


async def answer_with(head: bytes, port: int) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", port)


async def test_a_node_joins_its_own_and_nobody_else(
    free_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await refuse_strangers("127.0.0.1", free_port, "ours")  # nobody listens
    assert not caplog.records
    for head, is_ours in [
        (b"HTTP/1.1 200 OK\r\nX-Clarion-Deployment: ours\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nx-clarion-deployment: theirs\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\n", False),
        (b"220 mail.example.com ESMTP\r\n", False),
        (b"x" * 20_000, False),
    ]:
        async with await answer_with(head, free_port):
            if is_ours:
                await refuse_strangers("127.0.0.1", free_port, "ours")
            else:
                with pytest.raises(ConfigError, match=f"CLARION_PORT is {free_port}, but something listens"):
                    await refuse_strangers("127.0.0.1", free_port, "ours")
    monkeypatch.setattr("hub.shared_port.ANSWER_SECONDS", 0.05)
    with listener(free_port):  # takes connections and says nothing: it may be a node at the end of its tether
        await refuse_strangers("127.0.0.1", free_port, "ours")
    assert "cannot be told" in caplog.text


def test_several_nodes_need_a_system_that_shares_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    require_sharing(2)
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    require_sharing(1)
    with pytest.raises(ConfigError, match="--nodes is 2, but on this system only one process may listen"):
        require_sharing(2)


async def test_readiness_by_http(free_port: int) -> None:
    check = http_ready("127.0.0.1", free_port)
    assert not await check()
    answers = [b"HTTP/1.1 503 Busy\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"nonsense\r\n"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop(0))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", free_port):
        assert [await check() for _ in range(3)] == [False, True, False]
