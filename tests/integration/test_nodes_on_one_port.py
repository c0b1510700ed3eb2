"""`clarion up --nodes 2`: two nodes behind one port are one hub to everybody, whatever becomes of one of them."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from hub.supervisor import free_port, http_ready
from tests.support.command import Shell
from tests.support.listener import Listener
from tests.support.machine import Machine, running_machine
from tests.support.processes import eventually, is_alive

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes are found through /proc"),
]
BOTH = {"node-1", "node-2"}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with running_machine(tmp_path_factory.mktemp("machine"), "--nodes", "2") as machine:
        yield machine


@pytest.fixture
async def machine(started: Machine) -> AsyncIterator[Machine]:
    """With a client of this test's event loop."""
    async with httpx2.AsyncClient(timeout=10.0, limits=httpx2.Limits(max_keepalive_connections=0)) as client:
        started.client = client
        yield started


@asynccontextmanager
async def audience(machine: Machine, prefix: str, least: int = 8) -> AsyncIterator[dict[str, Listener]]:
    """Connected users, at least so many and at least one at each node."""
    listeners: dict[str, Listener] = {}
    try:
        async with asyncio.timeout(30):
            while len(listeners) < least or not await both_serve(machine):
                user = f"{prefix}-{len(listeners)}"
                listeners[user] = Listener(machine, user)
                await listeners[user].connected.wait()
        yield listeners
    finally:
        for listener in listeners.values():
            await listener.close()


async def both_serve(machine: Machine) -> bool:
    found = await machine.connections()
    return {name for name, count in found.items() if count} >= BOTH


async def publish_to(machine: Machine, listeners: dict[str, Listener], title: str) -> None:
    """One event for each and one for everyone; return when everybody has both."""
    events = [{"to": user, "title": title} for user in listeners] + [
        {"to": {"everyone": True}, "title": f"{title}!"}
    ]
    answer = await machine.call("POST", "/v1/events/batch", json=events)
    assert answer.status_code == 202, answer.text
    heard = lambda: all({title, f"{title}!"} <= set(one.titles) for one in listeners.values())  # noqa: E731
    await eventually(heard, 20, f"{title} for all")


async def back(machine: Machine, name: str, before: int) -> None:
    """Return when a part was started again and serves."""
    async with asyncio.timeout(30):
        while machine.pids().get(name, before) == before or name not in await labelled(machine):
            await asyncio.sleep(0.1)


async def labelled(machine: Machine) -> set[str]:
    text = (await machine.call("GET", "/metrics")).text
    return set(re.findall(r'clarion_build_info\{process="([^"]+)"', text))


@pytest.mark.req("R3", "R22")
async def test_both_get_connections_and_all_get_what_is_published(machine: Machine) -> None:
    async with audience(machine, "all") as listeners:
        await publish_to(machine, listeners, "hello")
        found = await machine.connections()
        assert sum(found.values()) == len(listeners)
        assert all(listener.connects == 1 for listener in listeners.values())


@pytest.mark.req("R32")
async def test_metrics_show_every_process_whichever_node_answers(machine: Machine) -> None:
    assert await labelled(machine) == {*BOTH, "generator", "sender"}
    for text in [(await machine.call("GET", "/metrics")).text for _ in range(8)]:
        shown = re.findall(r"^(clarion_connections\{.*|clarion_queue_waiting\{.*)\} ", text, re.MULTILINE)
        assert len(shown) == len(set(shown))  # no series twice, and the queue's not once for each node
        assert 'clarion_queue_waiting{partition="lane"' in shown


@pytest.mark.req("R20")
async def test_a_session_a_link_and_what_was_just_made_count_at_every_node(machine: Machine) -> None:
    link = machine.greeting["dashboard"]
    entered = await machine.client.get(link)
    assert entered.status_code == 303
    cookie = {"Cookie": entered.headers["set-cookie"].partition(";")[0]}
    pages = [await machine.client.get(f"{machine.url}/dashboard", headers=cookie) for _ in range(8)]
    assert {page.status_code for page in pages} == {200}
    again = [await machine.client.get(link) for _ in range(8)]
    assert all("set-cookie" not in answer.headers for answer in again)

    made = await machine.call("PUT", "/v1/types/node.test", json={"category": "tests", "title": "x"})
    assert made.is_success, made.text
    event = {"to": "alice", "type": "node.test", "data": {"word": "at once"}}
    answers = [await machine.call("POST", "/v1/events", json=event) for _ in range(8)]
    assert {answer.status_code for answer in answers} == {202}


@pytest.mark.req("R17")
async def test_a_page_is_hidden_through_whichever_node_hears_of_it(machine: Machine) -> None:
    async with audience(machine, "page", 2) as listeners:
        listener = listeners["page-0"]
        ready = listener.of_kind("ready")[0].data
        headers = machine.as_user("page-0")
        statuses = set()
        async with asyncio.timeout(20):
            while statuses != {204, 202}:  # set here; told to the node that has it
                body = {"connection": ready["connection"], "visible": False}
                answer = await machine.call("POST", "/v1/me/presence", json=body, headers=headers)
                statuses.add(answer.status_code)
                assert statuses <= {204, 202}, answer.text


@pytest.mark.req("R27", "I5", "I10")
async def test_clients_of_a_killed_node_go_to_the_other_and_it_comes_back(machine: Machine) -> None:
    async with audience(machine, "kill") as listeners:
        pid = machine.pids()["node-1"]
        os.kill(pid, signal.SIGKILL)
        await publish_to_surely(machine, listeners, "meanwhile")
        assert {one.gaps for one in listeners.values()} == {0}
        assert sorted({one.connects for one in listeners.values()}) == [1, 2]
        await back(machine, "node-1", pid)
    async with audience(machine, "afterwards") as listeners:  # which asks for connections at both
        await publish_to(machine, listeners, "again")


async def publish_to_surely(machine: Machine, listeners: dict[str, Listener], title: str) -> None:
    """The same, repeated while a dying node's connections are cut: with titles, since a repeat is another event."""
    for attempt in range(20):
        try:
            await publish_to(machine, listeners, f"{title} {attempt}")
        except httpx2.HTTPError:
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("nobody takes events")


@pytest.mark.req("I15")
async def test_a_node_that_is_asked_to_leave_sends_its_clients_to_the_other(machine: Machine) -> None:
    async with audience(machine, "drain") as listeners:
        for name in sorted(BOTH):  # a rolling restart
            pid = machine.pids()[name]
            os.kill(pid, signal.SIGTERM)
            await eventually(lambda pid=pid: not is_alive(pid), 20)
            await publish_to_surely(machine, listeners, f"without {name}")
            await back(machine, name, pid)
        told = {
            one.data["reason"] for listener in listeners.values() for one in listener.of_kind("reconnect")
        }
        assert told == {"shutdown"}
        assert {one.gaps for one in listeners.values()} == {0}


@pytest.mark.req("R22")
async def test_a_node_started_by_hand_joins_and_strangers_are_refused(
    machine: Machine, tmp_path: Path
) -> None:
    valkey = machine_redis(machine)
    ours = Shell(
        {**machine.environment, "CLARION_REDIS_URL": valkey, "CLARION_DIRECT_PORT": str(free_port())},
        tmp_path,
    )
    direct = int(ours.environment["CLARION_DIRECT_PORT"])
    command = (sys.executable, "-m", "hub", "node")
    quiet = asyncio.subprocess.DEVNULL
    node = await asyncio.create_subprocess_exec(*command, env=ours.environment, stdout=quiet, stderr=quiet)
    try:
        ready = http_ready("127.0.0.1", direct)
        async with asyncio.timeout(30):
            while not await ready():
                assert node.returncode is None
                await asyncio.sleep(0.05)
        node.send_signal(signal.SIGINT)
        assert await node.wait() == 0
    finally:
        if node.returncode is None:
            node.kill()
            await node.wait()

    others = ours.but(data_dir=str(tmp_path / "other"), redis_prefix="other", direct_port=str(free_port()))
    assert others("migrate").code == 0
    for done in await asyncio.to_thread(others.many, [["node"], ["up"]]):
        assert done.code == 2, done
        assert done.sentence == f"CLARION_PORT is {machine.port}, but something listens there already."


def machine_redis(machine: Machine) -> str:
    """The address of the machine's own Valkey."""
    with Path(f"/proc/{machine.pids()['generator']}/environ").open("rb") as environ:
        return dict(one.split("=", 1) for one in environ.read().decode().split("\0") if "=" in one)[
            "CLARION_REDIS_URL"
        ]


async def test_at_the_end_all_are_gone(machine: Machine) -> None:
    pids = machine.pids().values()
    assert len(pids) == 4
    assert await asyncio.to_thread(machine.end) == 0
    assert not any(is_alive(pid) for pid in pids)
