"""The README's lines run as they are printed, against a deployment: only the port, the key and the token are filled in."""

import os
import re
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from typer.main import get_command

from hub.__main__ import _load
from hub.cli.app import app
from hub.config import load_settings
from hub.definitions import read_folder
from hub.model.vocabulary import Channel
from tests.conftest import JS_FOLDER
from tests.support.cluster import API_KEY, Cluster
from tests.support.command import ROOT, Shell, cluster_of_module

README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"(?:(?<=\n\n)|\A)((?: {4,}\S.*\n(?:(?: {4,}.*)?\n)*)+)")
SECONDS = 60


def blocks() -> list[str]:
    """The indented code blocks: also those of lists, which begin further right."""
    return [textwrap.dedent(found).strip() for found in BLOCK.findall(README)]


def block(beginning: str) -> str:
    [found] = [one for one in blocks() if one.startswith(beginning)]
    return found


# How each block begins, and the test that runs it.
KNOWN = {
    "make up": "test_make_up_works_on_a_fresh_machine, tests/e2e/test_fresh_clone.py",
    ".venv/bin/clarion demo github": "test_its_commands_exist; it plays in tests/integration/test_command_line.py",
    ".venv/bin/clarion demo shop": "test_its_commands_exist; they play in tests/e2e/test_shop_story.py and test_social_story.py",
    "curl": "test_curl_publishes",
    "import json": "test_python_publishes",
    ".venv/bin/clarion send": "test_clarion_send_publishes",
    "XADD": "test_redis_publishes",
    "ACL": "test_the_restricted_redis_user_can_only_append",
    "const stream": "test_an_event_source_receives",
    "import { Centrifuge": "test_centrifuge_in_javascript_receives",
    "import asyncio": "test_centrifuge_in_python_receives",
    ".venv/bin/clarion apply": "test_definitions_are_applied_and_exported",
    "CLARION_EMAIL_FROM": "test_the_settings_of_channels_are_accepted",
    "export CLARION_REDIS_URL": "test_its_commands_exist; the roles run in every test with a cluster",
    "make test": "whoever reads this",
}


def test_every_block_is_run_by_some_test() -> None:
    assert len(blocks()) == len(KNOWN)
    for beginning in KNOWN:
        assert block(beginning)
    assert README.count("```") == 0, "the README indents its code"


def test_its_commands_exist() -> None:
    """Every `clarion …` of the README, in blocks and in sentences, is a command with these options."""
    _load()
    lines = [line for one in blocks() for line in one.splitlines()]
    spans = re.findall(r"`((?:\.venv/bin/)?clarion [^`]+)`", README)
    calls = [call for call in (*lines, *spans) if re.match(r"(\.venv/bin/)?clarion ", call)]
    assert len(calls) > 12
    for call in calls:
        words = shlex.split(call, comments=True)[1:]
        if "--help" in words:
            continue
        command: Any = get_command(app)
        name = words[0]
        while hasattr(command, "commands"):
            name = words.pop(0)
            assert name in command.commands, call
            command = command.commands[name]
        command.make_context(name, words)  # parses; raises for what the command does not take


def test_the_settings_of_channels_are_accepted() -> None:
    given = dict(re.findall(r'^CLARION_([A-Z_]+)="(.*)"$', block("CLARION_EMAIL_FROM"), re.MULTILINE))
    file = given["MOBILE_PROVIDERS"].partition("credentials=")[2]
    given["MOBILE_PROVIDERS"] = given["MOBILE_PROVIDERS"].replace(file, __file__)
    settings = load_settings(**{name.lower(): value for name, value in given.items()})
    assert settings.available_channels == set(Channel) - {Channel.IN_APP}


# ---------------------------------------------------------------- against a deployment


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of_module(tmp_path_factory.mktemp("readme")) as started:
        yield started


@pytest.fixture
def redis(cluster: Cluster) -> Iterator[Redis]:
    with Redis.from_url(cluster.valkey.url, decode_responses=True) as client:
        yield client


def filled(code: str, cluster: Cluster) -> str:
    assert "127.0.0.1:8000" in code
    return code.replace("127.0.0.1:8000", f"127.0.0.1:{cluster.nodes[0].port}")


def environment(cluster: Cluster, user: str = "alice") -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "KEY": API_KEY, "TOKEN": cluster.token(user), "LC_ALL": "C.UTF-8"}


def run(*command: str, cluster: Cluster) -> str:
    return subprocess.run(
        command, env=environment(cluster), capture_output=True, text=True, timeout=SECONDS, check=True
    ).stdout


def wait_for(cluster: Cluster, user: str, title: str) -> dict[str, Any]:
    """The notification of a user's inbox, as soon as it is there."""
    with httpx2.Client(base_url=cluster.nodes[0].url, headers=cluster.as_user(user)) as client:
        while True:
            rows = client.get("/v1/me/notifications").json()["notifications"]
            for row in rows:
                if row["title"] == title:
                    return dict(row)
            time.sleep(0.05)


@pytest.mark.req("R5")
def test_curl_publishes(cluster: Cluster) -> None:
    line = filled(block("curl"), cluster)
    first = run("bash", "-c", f"{line} -sS", cluster=cluster)
    assert '"accepted"' in first
    assert run("bash", "-c", f"{line} -sS", cluster=cluster) == first  # the same key: one event
    shown = wait_for(cluster, "alice", "Your order is paid")
    assert (shown["body"], shown["url"], shown["event"] in first) == (
        "We pack it today.",
        "/orders/1001",
        True,
    )


@pytest.mark.req("R5")
def test_python_publishes(cluster: Cluster) -> None:
    printed = run(sys.executable, "-c", filled(block("import json"), cluster), cluster=cluster).strip()
    for user in ("alice", "bob"):
        assert wait_for(cluster, user, "Your parcel is on its way")["event"] == printed


@pytest.mark.req("R5")
def test_clarion_send_publishes(cluster: Cluster, tmp_path: Path) -> None:
    words = shlex.split(block(".venv/bin/clarion send"))
    clarion = Shell({**cluster.environment, "CLARION_PORT": str(cluster.nodes[0].port)}, tmp_path)
    assert clarion(*words[1:]).code == 0
    assert wait_for(cluster, "bob", "Your parcel has arrived")["url"] == "/orders/1001"


@pytest.mark.req("R5")
def test_redis_publishes(cluster: Cluster, redis: Redis) -> None:
    line = shlex.split(block("XADD"))
    redis.execute_command(*line)
    redis.execute_command(*line)  # the same key
    shown = wait_for(cluster, "alice", "Hello")
    titles = [
        row["title"]
        for row in httpx2.get(
            f"{cluster.nodes[0].url}/v1/me/notifications", headers=cluster.as_user("alice")
        ).json()["notifications"]
    ]
    assert titles.count("Hello") == 1
    described = httpx2.get(
        f"{cluster.nodes[0].url}/v1/events/{shown['event']}", headers={"Authorization": f"Bearer {API_KEY}"}
    ).json()
    assert described["source"] == "redis:shop"
    # "serves who accepts at most once": only the holder of the ingest lease listens
    assert re.search(r"`PUBLISH (clarion:publish) <json>`", README)
    assert redis.publish("clarion:publish", '{"to": "alice", "title": "Perhaps"}') == 1
    assert wait_for(cluster, "alice", "Perhaps")


@pytest.mark.req("R5", "I16")
def test_the_restricted_redis_user_can_only_append(cluster: Cluster, redis: Redis) -> None:
    redis.execute_command(*shlex.split(block("ACL")))
    with Redis.from_url(cluster.valkey.url, username="shop", password="PASSWORD") as shop:
        shop.execute_command(
            *shlex.split(block("XADD").replace("Hello", "From the shop").replace("order-1001-paid", "x"))
        )
        assert wait_for(cluster, "alice", "From the shop")
        for forbidden in (
            ["XADD", "clarion:ingest:rejected", "*", "event", "x"],
            ["XADD", "clarion:{0}:queue", "*", "event", "x"],
            ["XADD", "other", "*", "event", "x"],
            ["XRANGE", "clarion:ingest", "-", "+"],
            ["XLEN", "clarion:ingest"],
            ["XTRIM", "clarion:ingest", "MAXLEN", "0"],
            ["XDEL", "clarion:ingest", "1-1"],
            ["DEL", "clarion:ingest"],
            ["PUBLISH", "clarion:publish", "{}"],
            ["SUBSCRIBE", "clarion:publish"],
            ["GET", "clarion:ingest"],
            ["KEYS", "*"],
            ["SCAN", "0"],
            ["EVAL", "return 1", "0"],
            ["CONFIG", "GET", "*"],
            ["ACL", "LIST"],
            ["FLUSHALL"],
            ["SHUTDOWN"],
        ):
            with pytest.raises((NoPermissionError, ResponseError), match=r"(?i)permission|NOPERM"):
                shop.execute_command(*forbidden)
    with (
        Redis.from_url(cluster.valkey.url, username="shop", password="wrong") as stranger,
        pytest.raises(AuthenticationError),
    ):
        stranger.execute_command("PING")


@pytest.mark.req("R1")
async def test_an_event_source_receives(cluster: Cluster, chromium: str) -> None:
    from playwright.async_api import async_playwright

    code = block("const stream")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page()
        await page.goto(f"{cluster.nodes[0].url}/preferences")  # any page of ours
        token = cluster.token("eve")
        async with page.expect_console_message(lambda said: said.text == "To an EventSource"):
            ready = "await new Promise((then) => stream.addEventListener('ready', then));"
            await page.evaluate(f"async (token) => {{ {code}\n{ready} }}", token)
            await cluster_publish(cluster, "eve", "To an EventSource")
        await browser.close()


async def cluster_publish(cluster: Cluster, user: str, title: str) -> None:
    async with httpx2.AsyncClient(base_url=cluster.nodes[0].url) as client:
        answer = await client.post(
            "/v1/events", json={"to": user, "title": title}, headers={"Authorization": f"Bearer {API_KEY}"}
        )
        assert answer.status_code == 202


def receives(process: "subprocess.Popen[bytes]", cluster: Cluster, user: str, title: str) -> str:
    """Publish until a program that listens prints it: nothing tells us when it has connected."""
    assert process.stdout
    os.set_blocking(process.stdout.fileno(), False)
    said = ""
    with httpx2.Client(
        base_url=cluster.nodes[0].url, headers={"Authorization": f"Bearer {API_KEY}"}
    ) as client:
        while title not in said and process.poll() is None:
            assert client.post("/v1/events", json={"to": user, "title": title}).status_code == 202
            time.sleep(0.05)
            said += (process.stdout.read() or b"").decode()
    return said


@pytest.mark.req("R1")
def test_centrifuge_in_javascript_receives(cluster: Cluster, node: str) -> None:
    code = filled(block("import { Centrifuge"), cluster)
    before = (
        'import WebSocket from "ws";\nglobalThis.WebSocket ??= WebSocket;\nconst token = process.env.TOKEN;\n'
    )
    with subprocess.Popen(
        [node, "--input-type=module", "--eval", before + code],
        cwd=JS_FOLDER, env=environment(cluster, "jo"), stdout=subprocess.PIPE, bufsize=0,
    ) as process:  # fmt: skip
        try:
            said = receives(process, cluster, "jo", "To JavaScript")
        finally:
            process.kill()
    assert "notification {" in said


@pytest.mark.req("R1")
def test_centrifuge_in_python_receives(cluster: Cluster) -> None:
    code = filled(block("import asyncio"), cluster)
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment(cluster, "pia"), stdout=subprocess.PIPE, bufsize=0
    ) as process:
        try:
            said = receives(process, cluster, "pia", "To Python")
        finally:
            process.kill()
    assert said.startswith("notification {")


@pytest.mark.req("R16")
def test_definitions_are_applied_and_exported(cluster: Cluster, tmp_path: Path) -> None:
    clarion = Shell({**cluster.environment, "CLARION_PORT": str(cluster.nodes[0].port)}, tmp_path)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "demo").symlink_to(ROOT / "hub" / "demo")
    for line in block(".venv/bin/clarion apply").splitlines():
        done = clarion(*shlex.split(line, comments=True)[1:])
        assert done.code == 0, done
    [types] = re.findall(r"`hub/demo` holds the (\d+) types", README)
    exported = read_folder(tmp_path / "notifications")
    assert len(exported.types) == len(read_folder(ROOT / "hub" / "demo").types) == int(types)


@pytest.mark.req("R17")
def test_the_addresses_that_it_names_answer(cluster: Cluster) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with httpx2.Client(base_url=cluster.nodes[0].url, headers=headers) as client:
        for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
            assert f"`{path}`" in README
            assert client.get(path).status_code == 200
        [explain] = re.findall(r"`GET (/v1/explain\?\S+)`", README)
        definition = {"category": "orders", "title": "Paid", "channels": {"in_app": {}}}
        client.put("/v1/types/order.paid", json=definition).raise_for_status()
        assert client.get(explain).json()["rules"]
        known = client.get("/openapi.json").json()["paths"]
        for method, path in re.findall(r"`(GET|POST) (/v1/[a-z/]+)`", README):
            assert method.lower() in known[path], path
        for path in re.findall(r"`(/(?:preferences|dashboard))`", README):
            assert client.get(path, follow_redirects=False).status_code < 500
        assert client.get("/readyz").json()["durability"] == "strong"


def test_the_port_of_its_lines_is_the_default() -> None:
    from hub.config import Settings

    assert {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", README)} == {
        Settings.model_fields["port"].default
    }
