"""The benchmarks can be believed: the load generator counts exactly, ratios and verdicts are right, nothing stays behind."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import machine, native
from benchmarks.__main__ import options
from benchmarks.load import ALL, NONE, ONE, Clients, Load, LoadFailed, Publishers
from benchmarks.report import print_results, print_targets, spread
from benchmarks.results import Results
from benchmarks.servers import nchan
from benchmarks.servers.candidate import PLAIN_BODY, floor
from benchmarks.servers.sinks import sink
from benchmarks.targets import FLOOR, HUB, LOOP, NCHAN, NODE, Verdict, verdicts
from benchmarks.workloads.broadcast import SAME_BYTES
from hub.model.outcomes import Sent
from hub.model.outgoing import Target
from hub.model.vocabulary import Channel
from hub.provider_urls import parse_provider
from hub.supervisor import free_port
from workers.channels.mail_message import Mail
from workers.channels.smtp import SmtpProvider

ROOT = Path(__file__).resolve().parent.parent.parent
needs_compiler = pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="no C compiler")
needs_linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be pinned")

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
OK = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok"


@needs_linux
def test_a_process_is_moved_with_its_threads() -> None:
    script = "import threading\nthreading.Thread(target=input).start()\nprint('ready', flush=True)\ninput()"
    core = machine.LOAD_CORE
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            machine.pin(process.pid, core)
            threads = [int(one.name) for one in Path(f"/proc/{process.pid}/task").iterdir()]
            assert [os.sched_getaffinity(thread) for thread in threads] == [{core}] * 2
        finally:
            process.kill()


@needs_linux
@needs_compiler
@pytest.mark.skipif(len(machine.CORES) < 2, reason="one core: servers and load share it")
def test_servers_do_not_share_the_core_of_the_load(tmp_path: Path) -> None:
    script = """
import os
from benchmarks import __main__, machine

async def look(given, bench):
    print(os.sched_getaffinity(0) == {machine.LOAD_CORE}, machine.SERVER_CORE != machine.LOAD_CORE)
    return True

__main__.run = look
__main__.main(["planner", "--json", "figures.json"])
"""
    outcome = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=True,
    )
    cores = json.loads((tmp_path / "figures.json").read_text())["machine"]
    assert outcome.stdout.startswith("True True\n")
    assert cores["server_core"] != cores["load_core"]


def test_where_cores_cannot_be_pinned_it_says_so() -> None:
    script = """
import os, sys
vars(os).pop("sched_getaffinity", None), vars(os).pop("sched_setaffinity", None)
from benchmarks import __main__
sys.exit(__main__.main([]))
"""
    outcome = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, text=True, capture_output=True, check=False
    )
    assert outcome.returncode == 1
    assert outcome.stdout.startswith("The benchmarks need Linux:")


# ---------------------------------------------------------------- the load generator


def frame(text: str) -> bytes:
    """A text frame as a server sends it."""
    payload = text.encode()
    if len(payload) < 126:
        return bytes([0x81, len(payload)]) + payload
    return bytes([0x81, 126]) + len(payload).to_bytes(2, "big") + payload


class Server:
    """Takes WebSocket clients and POSTs, remembers what came, and delivers what a test makes of a message."""

    def __init__(self, greeting: str = "", copies: int = 1) -> None:
        self.port = free_port()
        self.greeting = greeting
        self.copies = copies
        self.heads: list[str] = []
        self.texts: list[str] = []
        self.bodies: list[str] = []
        self.clients: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                if head.startswith("GET"):
                    writer.write(ACCEPTED)
                    self.clients.append(writer)
                    await self.listen(reader, writer)
                length = next(
                    int(line[15:]) for line in head.split("\r\n") if line.startswith("Content-Length")
                )
                self.bodies.append((await reader.readexactly(length)).decode())
                for client in self.clients:
                    client.write(frame(self.bodies[-1]) * self.copies)
                writer.write(OK)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            size = (await reader.readexactly(2))[1] & 127
            if size == 126:
                size = int.from_bytes(await reader.readexactly(2), "big")
            await reader.readexactly(4)  # the mask, which is zero
            self.texts.append((await reader.readexactly(size)).decode())
            if self.greeting and len(self.texts[-1]) > 2:
                writer.write(frame(self.greeting))


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", server.port)
    try:
        yield server
    finally:
        listener.close()
        for client in server.clients:
            client.close()


@needs_compiler
@needs_linux
async def test_every_client_of_the_floor_gets_every_message_once_over_both_transports():
    async with AsyncExitStack() as stack:
        candidate = await floor(stack)
        for clients in (candidate.websocket, candidate.sse):
            async with Load(clients, candidate.publishers, 40) as load:
                assert (await load.connect())["open"] == 40
                answer = await load.publish(count=30, window=8, audience=ALL, size=400)
                assert (answer["delivered"], answer["least"], answer["most"]) == (1_200, 30, 30)
                assert 0 < answer["p50_ms"] <= answer["p99_ms"] <= answer["max_ms"] * 1.01
                assert answer["bytes"] >= 1_200 * 400
                assert (await load.command("cut"))["open"] == 0


@needs_compiler
@needs_linux
@pytest.mark.parametrize("copies", [0, 2])
async def test_a_delivery_that_is_missing_or_comes_twice_is_noticed(copies):
    async with (
        serving(Server(copies=copies)) as server,
        Load(Clients(server.port, "/"), Publishers([PLAIN_BODY]), 3) as load,
    ):
        await load.connect()
        with pytest.raises(LoadFailed, match="deliveries instead of 3"):
            await load.publish(count=1, audience=ALL, limit=0.3)


@needs_compiler
@needs_linux
async def test_templates_carry_user_token_and_filler_and_batches_are_arrays(tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("".join(f"token-{number}\n" for number in range(20)))
    body = '{"to":"u{i}","ts":{ts},"nested":{"pad":"{pad}"}}'
    async with serving(Server()) as server:
        clients = Clients(server.port, "/ws?token={t}", init='{"token":"{t}","user":{i}}', tokens=tokens)
        async with Load(clients, Publishers([body], "/one", "/many", ["X-Key: k"], count=1), 2) as load:
            await load.connect(first=10)
            await load.publish(count=1, audience=ALL, size=300)
            server.copies = 0
            await load.publish(count=6, batch=3, window=6, audience=NONE, users=5, size=100)
            server.texts.sort()
        assert sorted(head.split(" ")[1] for head in server.heads[:2]) == [
            "/ws?token=token-10",
            "/ws?token=token-11",
        ]
        assert [json.loads(text) for text in server.texts[:2]] == [
            {"token": f"token-{number}", "user": number} for number in (10, 11)
        ]
        single, *batches = server.bodies
        assert len(single) == 300
        assert set(json.loads(single)) == {"to", "ts", "nested"}
        assert "POST /many" in server.heads[-1]
        assert "X-Key: k\r\n" in server.heads[-1]
        assert [len(json.loads(batch)) for batch in batches] == [3, 3]
        users = {item["to"] for batch in batches for item in json.loads(batch)}
        assert users <= {f"u{number}" for number in range(10, 15)}


@needs_compiler
@needs_linux
async def test_who_comes_back_says_where_it_was_and_catches_up():
    greeting = (
        '{"subs":{"#u0":{"epoch":"e1","offset":41},"broadcasts":{"offset":7,"epoch":"e2"}},"x":{"ts":5}}'
    )
    returning = '{"places":["{epoch0}",{offset0},"{epoch1}",{offset1}]}'
    async with serving(Server(greeting)) as server:
        clients = Clients(server.port, "/", init='{"hi":1}', return_init=returning, ready='"subs"',
                          marks=('"#u', '"broadcasts":{'))  # fmt: skip
        async with Load(clients, Publishers([PLAIN_BODY]), 1) as load:
            await load.connect()
            await load.command("cut")
            answer = await load.connect(**{"return": 1, "catch_up": 1})
            assert (answer["delivered"], answer["without"]) == (1, 0)
        assert json.loads(server.texts[-1]) == {"places": ["e1", 41, "e2", 7]}


@needs_compiler
@needs_linux
async def test_pings_are_answered_and_slow_clients_read_nothing():
    server = Server()
    load = Load(Clients(server.port, "/"), Publishers([PLAIN_BODY]), 4, slow_share=0.5)
    async with serving(server), load:
        await load.connect()
        for client in server.clients:
            client.write(frame("{}"))
        await load.command("wait", seconds=0.1)
        assert server.texts == ["{}", "{}"]
        assert (await load.publish(count=5, audience=ALL))["delivered"] == 10


@needs_compiler
@needs_linux
async def test_a_refusal_is_told_with_the_answer():
    async with serving(Server()) as server:
        async with Load(Clients(free_port(), "/"), Publishers([PLAIN_BODY]), 1) as load:
            with pytest.raises(LoadFailed, match="0 of 1 clients"):
                await load.connect()
        async with Load(Clients(server.port, "/"), Publishers(['{"no":"delivery"}']), 1) as load:
            await load.connect()
            with pytest.raises(LoadFailed, match="0 deliveries instead of 1"):
                await load.publish(count=1, audience=ONE, limit=0.2)


@needs_compiler
@needs_linux
async def test_the_sink_takes_mails_and_pushes_and_counts_each_once():
    async with AsyncExitStack() as stack:
        mails, pushes = await sink(stack, "smtp"), await sink(stack, "http")
        for kind, port in (("mail", mails.port), ("push", pushes.port)):
            figures = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "benchmarks.servers.bare_sender", kind, str(port), "50", "3", "5000", "1000",
                cwd=ROOT, stdout=subprocess.PIPE,
            )  # fmt: skip
            out, _ = await figures.communicate()
            assert figures.returncode == 0
            assert json.loads(out)["cpu_us"] > 0
        provider = SmtpProvider(
            parse_provider(Channel.EMAIL, f"smtp://127.0.0.1:{mails.port}"), "test.example"
        )
        tricky = Mail("shop@example.com", b"Subject: x\r\n\r\nDATA\r\n.\r\nCOUNT\r\n..\r\n")
        for _ in range(2):
            assert isinstance(await provider.send(tricky, Target("a", "a@example.com")), Sent)
        await provider.close()
        came = await mails.counts()
        assert (came.messages, came.most_at_once) == (52, 3)
        assert came.bytes > 50 * 4_900
        came = await pushes.counts()
        assert came.messages == 50
        assert came.most_at_once <= 4  # three, and who asked


def test_a_missing_compiler_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(native.BuildFailed, match=r"^The benchmarks need a C compiler: [^.]*\.$"):
        native.program("floor")


def test_programs_stay_out_of_the_source_tree(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native.cache_folder().is_relative_to(tmp_path)


# ---------------------------------------------------------------- figures


def results_of(**cpu_us: list[float]) -> Results:
    results = Results()
    for name, values in cpu_us.items():
        for value in values:
            results.add("broadcast", "10000 connections, 3 a second", name.replace("_", " "), cpu_us=value)
    return results


def test_a_ratio_is_the_median_of_the_rounds_own_ratios():
    results = results_of(ours=[10.0, 40.0, 12.0], theirs=[5.0, 10.0, 6.0])
    key = ("broadcast", "10000 connections, 3 a second")
    assert results.ratio("cpu_us", (*key, "ours"), (*key, "theirs")) == 2.0
    assert results.ratio("cpu_us", (*key, "ours"), (*key, "nobody")) is None
    assert results.median(*key, "ours", "cpu_us") == 12.0


def test_figures_show_median_least_and_most():
    assert spread([3.0, 1.0, 2.0], "cpu_us") == "2.00 (1.00–3.00)"  # noqa: RUF001 - as the tables show it
    assert spread([1.0, 2.0], "seconds") == "1.50 (1.00–2.00)"  # noqa: RUF001
    assert spread([1234.5], "events_per_s") == "1,234"
    assert spread([], "cpu_us") == ""


def test_targets_are_met_or_missed_by_their_own_bounds():
    def word(value, **bounds):
        return Verdict("x", value, **bounds).word

    assert [word(v, must=1.6, aim=1.25) for v in (1.2, 1.25, 1.6, 1.61, None)] == [
        "aim met", "aim met", "met", "MISSED", "not measured",
    ]  # fmt: skip
    assert [word(v, must=4, aim=6, is_upper=False) for v in (6, 5, 3.9)] == ["aim met", "met", "MISSED"]


def test_broadcasts_are_judged_by_the_whole_product_at_10000_connections():
    results = Results()
    for size, floor_us in ((1_000, 1.0), (10_000, 2.0), (19_500, 1.0)):
        for view, cpu_us in ((HUB, 3.0), (NODE, 2.5), (FLOOR, floor_us), (NCHAN, 3.0), (LOOP, 6.0)):
            results.add("broadcast", f"{size} connections, 3 a second", view, cpu_us=cpu_us)
        results.add("broadcast", f"{size} connections, eight in flight", HUB, cpu_us=0.6)
    found = {verdict.name: verdict.value for verdict in verdicts(results)}
    assert found["CPU per broadcast delivery against the floor"] == 1.5
    assert found["CPU per broadcast delivery against the floor, node alone"] == 1.25
    assert found["CPU per broadcast delivery against nchan"] == 1.0
    assert found["CPU per broadcast delivery against await send_text in a loop"] == 0.5
    assert found["eight broadcasts in flight against one"] == pytest.approx(0.2)
    assert found["durable batch ingest"] is None


def test_the_tables_show_who_could_not_take_part(capsys):
    results = results_of(ours=[10.0])
    results.lacks("broadcast", "10000 connections, 3 a second", nchan.NAME, "not installed")
    console = Console(width=120)
    print_results(results, console)
    print_targets(verdicts(results), console)
    shown = capsys.readouterr().out
    assert "not installed" in shown
    assert "not measured" in shown
    (case,) = results.as_json()
    assert case["missing"] == {nchan.NAME: "not installed"}
    assert case["candidates"]["ours"]["cpu_us"] == {
        "median": 10.0,
        "min": 10.0,
        "max": 10.0,
        "rounds": [10.0],
    }


@pytest.mark.parametrize("given", [["dance"], ["--rounds", "0"], ["--connections", "0"]])
def test_wrong_arguments_are_refused_with_what_would_do(given, capsys):
    with pytest.raises(SystemExit) as refused:
        options(given)
    assert refused.value.code == 2
    assert "python -m benchmarks" in capsys.readouterr().err


# ---------------------------------------------------------------- the real thing, small


def left_running(folder: Path) -> list[str]:
    """The command lines of processes that were started with this folder for temporary files."""
    mark = f"TMPDIR={folder}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.mark.slow
@needs_compiler
@needs_linux
def test_a_small_run_counts_every_delivery_names_every_candidate_and_leaves_nothing(tmp_path):
    figures, folder = tmp_path / "figures.json", tmp_path / "tmp"
    folder.mkdir()
    arguments = [
        "broadcast",
        "ingest",
        "--quick",
        "--rounds",
        "1",
        "--connections",
        "50",
        "--json",
        str(figures),
    ]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    written = json.loads(figures.read_text())
    cases = {(one["workload"], one["case"]): one for one in written["results"]}
    steady, flight = (
        cases["broadcast", f"50 connections, {name}"] for name in ("3 a second", "eight in flight")
    )
    everybody = {HUB, NODE, FLOOR, LOOP, NCHAN}
    rivals = everybody - {HUB, NODE} - steady["missing"].keys()
    same = {name + SAME_BYTES for name in rivals}
    assert steady["candidates"].keys() | steady["missing"].keys() == everybody | same
    ours = steady["candidates"][HUB]["bytes"]["median"]
    for name in rivals:
        assert steady["candidates"][name]["bytes"]["median"] < ours / 2
        assert steady["candidates"][name + SAME_BYTES]["bytes"]["median"] == pytest.approx(ours, rel=0.05)
    for case, messages in ((steady, 3), (flight, 24)):
        for name, measured in case["candidates"].items():
            assert measured["deliveries"]["rounds"] == [50 * messages], name
            assert measured["cpu_us"]["median"] > 0
    single = cases["ingest", "one event a request"]["candidates"]
    assert single.keys() == {HUB, NODE, "Starlette, awaited XADD", "Starlette, app alone"}
    assert {target["verdict"] for target in written["targets"]} <= {
        "aim met",
        "met",
        "MISSED",
        "not measured",
    }
    assert left_running(folder) == []
    assert list(folder.glob("clarion-bench-*")) == []
