"""The command line: real processes beside one running deployment. What they print, what they refuse, how they end."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from hub import supervisor
from hub.__main__ import _load
from hub.adapters.embedded_valkey import EmbeddedValkey
from hub.cli.app import app
from hub.definitions import read_folder
from tests.support.cluster import API_KEY, Cluster
from tests.support.command import ROOT, Ended, Running, Shell, closed_pipe, cluster_of_module

COMMANDS = [
    ("up",), ("node",), ("generate",), ("migrate",), ("apply",), ("export",), ("send",), ("tail",),
    ("keys", "create"), ("keys", "list"), ("keys", "revoke"), ("keys", "rotate"), ("token",), ("demo", "github"),
    ("demo", "shop"), ("demo", "social"),
    ("dashboard",), ("doctor",), ("verify",), ("replay",),
]  # fmt: skip
HEAVY = ("sqlalchemy", "uvicorn", "alembic", "jsonschema_rs", "starlette", "asyncpg", "jinja2")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of_module(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture(scope="module")
def clarion(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    environment = {**cluster.environment, "CLARION_PORT": str(cluster.nodes[0].port)}
    return Shell(environment, tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture
def ask(cluster: Cluster) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with httpx2.Client(base_url=cluster.nodes[0].url, headers=headers) as client:
        yield client


def inbox(ask: httpx2.Client, cluster: Cluster, user: str, until: str) -> list[str]:
    """A user's titles, newest first, as soon as there is the one that is waited for."""
    while True:
        page = ask.get("/v1/me/notifications", headers=cluster.as_user(user)).json()
        titles = [row["title"] for row in page["notifications"]]
        if until in titles:
            return titles
        time.sleep(0.05)


# ---------------------------------------------------------------- help, and what it costs


def test_every_command_has_help_with_an_example() -> None:
    _load()
    for command in COMMANDS:
        shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "100"}, prog_name="clarion")
        assert shown.exit_code == 0
        assert f"clarion {' '.join(command)}" in shown.stdout.partition("Example: ")[2], shown.stdout


def test_commands_that_print_data_print_json_too() -> None:
    _load()
    for command in COMMANDS:
        shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "100"}).stdout
        assert ("--json" in shown) == (command[0] not in ("node", "generate")), command


@pytest.mark.parametrize(
    "args",
    [["--help"], ["send", "alice", "--url", "http://127.0.0.1:1"], ["token", "--user", "alice"], ["tail"]],
)
def test_light_commands_do_not_load_what_is_heavy(tmp_path: Path, args: list[str]) -> None:
    program = (
        "import sys; from hub.__main__ import main\n"
        f"sys.argv = ['clarion', *{args!r}]\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not loaded, loaded"
    )
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "CLARION_API_KEY": API_KEY,
        "CLARION_TOKEN_SECRET": "s" * 32, "CLARION_PORT": "1", "CLARION_DATA_DIR": str(tmp_path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- publishing


@pytest.mark.req("R5", "R33")
def test_send_publishes_from_options_a_file_and_standard_input(
    clarion: Shell, cluster: Cluster, ask: httpx2.Client
) -> None:
    first = clarion(
        "send", "sara", "tom", "--title", "From options", "--body", "[b]not markup[/b]", "--json"
    ).json
    assert first["status"] == "accepted"
    file = clarion.folder / "event.json"
    file.write_text('{"to": "sara", "title": "From a file ☕"}')
    said = clarion("send", "--event", str(file), "--idempotency-key", "once")
    again = clarion("send", "--event", str(file), "--idempotency-key", "once")
    assert said.stdout == again.stdout
    assert said.stdout.startswith("accepted evt_")
    piped = clarion("send", "--event", "-", stdin=b'{"to": "sara", "title": "From a pipe"}')
    assert piped.code == 0
    ask.put("/v1/topics/news/users/sara").raise_for_status()
    assert clarion("send", "--topic", "news", "--everyone", "--title", "All", "--data", '{"n": 1}').code == 0

    titles = inbox(ask, cluster, "sara", until="All")
    assert [title for title in titles if title != "All"] == ["From a pipe", "From a file ☕", "From options"]
    assert "From options" in inbox(ask, cluster, "tom", until="All")
    [row] = [
        row
        for row in ask.get("/v1/me/notifications", headers=cluster.as_user("tom")).json()["notifications"]
        if row["title"] == "From options"
    ]
    assert (row["event"], row["body"]) == (first["id"], "[b]not markup[/b]")


def test_what_the_hub_refuses_is_one_sentence(clarion: Shell) -> None:
    for done, words in zip(
        clarion.many(
            [
                ["send", "sara", "--title", "x", "--type", "nope"],
                ["send", "sara lee", "--title", "x"],
                ["send", "sara", "--data", "[1]"],
                ["send", "sara", "--key", "a-wrong-key-of-somebody"],
                ["send", "sara", "--url", f"http://127.0.0.1:{supervisor.free_port()}"],
                ["export", str(clarion.folder / "refused"), "--key", "a-wrong-key-of-somebody"],
            ]
        ),
        ["nope", "/to/0", "/data", "key", "no hub answers", "key"],
        strict=True,
    ):
        assert done.code == 1, done
        assert words in done.sentence
    for stdin in (b"", b"{", b'{"to": 1}', b"\xff\xfe", b'{"to": "sara", "nope": 1}'):
        done = clarion("send", "--event", "-", stdin=stdin)
        assert done.code == 1, done
        assert done.sentence


def test_something_else_that_answers_is_told_from_a_hub(clarion: Shell) -> None:
    page = b"<h1>Hello</h1>"
    answer = b"HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    for status in (b"200 OK", b"404 Not Found", b"302 Found"):
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            clarion.start(
                "send", "sara", "--title", "x", "--url", f"http://127.0.0.1:{server.getsockname()[1]}"
            ) as sending,
        ):
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer % (status, len(page), page))
            assert sending.end() == 1
        assert "hub" in sending.said
        assert "Traceback" not in sending.said
        assert sending.said.count("\n") == 1


# ---------------------------------------------------------------- types and categories

PAID = """\
category = "orders"
title = "Order {{ data.number }} is paid"
body_file = "order.paid.txt"
expose = ["number"]
schema_file = "order.json"

[channels.in_app]
when = "always"

[locales.de]
title = "Bestellung {{ data.number }} ist bezahlt"
"""


def write_definitions(folder: Path) -> None:
    (folder / "types").mkdir(parents=True)
    (folder / "categories").mkdir()
    (folder / "categories" / "orders.toml").write_text('title = "Orders"\n[defaults]\nsms = false\n')
    (folder / "types" / "order.paid.toml").write_text(PAID)
    (folder / "types" / "order.paid.txt").write_text("Thank you, {{ recipient.name }}.\nWe pack it today.\n")
    (folder / "types" / "order.json").write_text('{"type": "object", "required": ["number"]}')
    (folder / "types" / "order.sent.toml").write_text(
        'category = "orders"\ntitle = "Sent"\n[channels.in_app]\n'
    )


@pytest.mark.req("R16")
def test_definitions_go_in_and_out_as_a_folder(clarion: Shell, ask: httpx2.Client, tmp_path: Path) -> None:
    folder, exported = tmp_path / "own", tmp_path / "exported"
    write_definitions(folder)
    dry = clarion("apply", str(folder), "--dry-run", "--json").json
    assert dry == {
        "dry_run": True,
        "categories": {"orders": "new"},
        "types": {"order.paid": "new", "order.sent": "new"},
    }
    assert ask.get("/v1/types/order.paid").status_code == 404

    done = clarion("apply", str(folder))
    assert done.stdout.splitlines() == ["2 types applied: 2 new.", "1 category applied: 1 new."]
    assert ask.get("/v1/types/order.paid").json()["version"] == 1

    assert clarion("export", str(exported), "--json").json["types"] == ["order.paid", "order.sent"]
    ours, theirs = read_folder(folder), read_folder(exported)
    assert theirs.types["order.paid"]["body"] == ours.types["order.paid"]["body"]
    assert theirs.types["order.paid"]["locales"] == ours.types["order.paid"]["locales"]
    again = clarion("apply", str(exported), "--json").json
    assert set(again["types"].values()) | set(again["categories"].values()) == {"unchanged"}

    (exported / "types" / "order.sent.toml").write_text('category = "orders"\ntitle = "On its way"\n')
    assert "changed  types/order.sent" in clarion("apply", str(exported), "--dry-run").stdout
    assert (
        clarion("apply", str(exported)).stdout.splitlines()[-2] == "2 types applied: 1 changed, 1 unchanged."
    )
    assert ask.get("/v1/types/order.sent").json()["version"] == 2


def test_a_folder_with_a_mistake_changes_nothing(clarion: Shell, ask: httpx2.Client, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    (folder / "types").mkdir(parents=True)
    (folder / "types" / "a.good.toml").write_text('category = "half"\ntitle = "Good"\n')
    (folder / "types" / "b.bad.toml").write_text('category = "half"\ntitle = "{% for x in %}"\n')
    done = clarion("apply", str(folder))
    assert done.code == 1
    assert "types/b.bad.toml" in done.sentence
    assert ask.get("/v1/types/a.good").status_code == 404

    (folder / "types" / "b.bad.toml").write_text('categroy = "half"\n')
    (tmp_path / "empty").mkdir()
    for wrong, words in (
        (folder, "did you mean 'category'?"),
        (folder / "types", "lies outside types/ and categories/"),
        (tmp_path / "empty", "neither types/ nor categories/"),
    ):
        done = clarion("apply", str(wrong))
        assert done.code == 1
        assert words in done.sentence


# ---------------------------------------------------------------- keys and tokens


@pytest.mark.req("R34")
def test_keys_are_created_listed_rotated_and_revoked(clarion: Shell) -> None:
    created = clarion("keys", "create", "a [shop]", "--scope", "read", "--scope", "users", "--json").json
    assert (created["name"], created["scopes"]) == ("a [shop]", ["read", "users"])
    refused = clarion("send", "sara", "--title", "x", "--key", created["key"])
    assert refused.code == 1
    assert "publish" in refused.sentence
    rotated = clarion("keys", "rotate", created["id"], "--overlap-seconds", "60").stdout.splitlines()
    assert rotated[0].endswith("(a [shop]), scopes: read users")
    assert rotated[2] != created["key"]
    assert clarion("keys", "revoke", created["id"], "--json").json == {"id": created["id"], "revoked": True}

    listed = {row["id"]: row for row in clarion("keys", "list", "--json").json}
    assert listed[created["id"]]["revoked_at"]
    assert listed["key_first"]["created_at"] is None
    assert not any("key" in row for row in listed.values())
    table = clarion("keys", "list").stdout
    assert created["id"] in table
    assert "revoked" in table
    assert "1970" not in table
    assert created["key"] not in table

    for done in clarion.many(
        [["keys", "revoke", "key_nope"], ["keys", "rotate", "key_nope"], ["keys", "revoke", "key_first"]]
    ):
        assert done.code == 1
        assert done.args[2] in done.sentence or "first key" in done.sentence


def test_a_token_opens_what_is_its_users(clarion: Shell, ask: httpx2.Client) -> None:
    made = clarion("token", "--user", "sara", "--minutes", "5", "--json").json
    plain = clarion("token", "--user", "sara").stdout
    assert (made["user"], made["expires_in_seconds"]) == ("sara", 300)
    for token in (made["token"], plain.strip()):
        answer = ask.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
        assert answer.json()["id"] == "sara"
    link = clarion("dashboard", "--json").json["link"]
    assert httpx2.get(link, follow_redirects=True).status_code == 200


# ---------------------------------------------------------------- watching


@pytest.mark.req("R21")
def test_tail_follows_the_live_log(clarion: Shell) -> None:
    with clarion.start("tail") as people, clarion.start("tail", "--json") as programs:
        people.note("following the live log")
        programs.note("following the live log")
        event = clarion("send", "vera", "--title", "Watch me", "--json").json["id"]
        assert "vera" in people.line("generated", event)
        line = Ended((), 0, programs.line('"generated"', event), "").json
        assert (line["state"], line["user"], line["event"]) == ("generated", "vera", event)
        assert people.interrupt() == 130
        programs.close_output()
        clarion("send", "vera", "--title", "Nobody reads this")
        assert programs.end() == 1
    for tail in (people, programs):
        assert tail.said.count("\n") == 1, tail.said


@pytest.mark.req("R21")
def test_tail_follows_one_user(clarion: Shell) -> None:
    with (
        clarion.start("tail", "--user", "vito") as people,
        clarion.start("tail", "--user", "vito", "--json") as programs,
    ):
        assert "unread" in people.note("listening as vito")
        assert '"ready"' in programs.line()
        clarion("send", "vito", "--title", "Only [bold]for[/bold] you", "--body", "Yes")
        assert people.line("Only [bold]for[/bold] you", "Yes", "messages")
        shown = Ended((), 0, programs.line("Only"), "").json
        assert shown["data"]["notification"]["body"] == "Yes"
        assert people.interrupt() == programs.interrupt() == 130


def test_tail_says_why_it_cannot_follow(clarion: Shell) -> None:
    stranger = clarion.but(token_secret="another-secret-that-is-long-enough")
    nobody = clarion.but(port=str(supervisor.free_port()))
    for done in (
        *stranger.many([["tail"], ["tail", "--user", "vera"]]),
        *nobody.many([["tail"], ["tail", "--user", "vera"]]),
    ):
        assert done.code == 1, done
        assert done.sentence


# ---------------------------------------------------------------- operating


@pytest.mark.req("R33")
def test_doctor_verify_and_migrate_are_content_with_what_runs(clarion: Shell) -> None:
    doctor, verify, migrate, people = clarion.many(
        [["doctor", "--json"], ["verify", "--json"], ["migrate", "--json"], ["doctor"]]
    )
    assert [(found["part"], found["level"]) for found in doctor.json] == [
        ("settings", "ok"), ("database", "ok"), ("redis", "ok"), ("queue", "ok"),
    ]  # fmt: skip
    assert verify.json == {"balanced": True, "faults": []}
    assert migrate.json == {"migrated": True}
    assert [line.split()[0] for line in people.stdout.splitlines()] == ["ok"] * 4
    assert people.code == 0


@pytest.mark.req("R14")
def test_the_demo_plays_all_its_webhooks(clarion: Shell) -> None:
    played = clarion("demo", "github", "--json").json
    assert (played["accepted"], played["rejected"]) == (329, 0)


# ---------------------------------------------------------------- what is refused


def test_a_wrong_call_is_told_in_one_sentence(clarion: Shell, tmp_path: Path) -> None:
    wrong = {
        ("sned",): "'sned'",
        ("send", "--nope"): "--nope",
        ("send",): "nobody is named",
        ("send", "a", "--data", "{"): "'{'",
        ("send", "a", "--url", "nonsense"): "'nonsense'",
        ("send", "a", "--url", "http://[::1"): "'http://[::1'",
        ("send", "a", "--url", "http://h:99999999"): "99999999",
        ("send", "a", "--key", "schlüssel"): "ASCII",
        ("send", "a", "--idempotency-key", "a\nb"): "'a\\nb'",
        ("send", "--event", str(tmp_path)): str(tmp_path),
        ("send", "--event", str(tmp_path / "none")): "does not exist",
        ("send", "a", "--event", "-"): "leave out everything else",
        ("apply", str(tmp_path / "none")): "does not exist",
        ("token",): "--user",
        ("token", "--user", "a b"): "'a b'",
        ("token", "--user", "a", "--minutes", "0"): "'0' should be",
        ("token", "--user", "a", "--minutes", "ten"): "'ten'",
        ("dashboard", "--name", "a/b"): "'a/b'",
        ("keys", "create", "x"): "--scope",
        ("keys", "create", "x", "--scope", "root"): "'root'",
        ("keys", "rotate", "x", "--overlap-seconds", "-1"): "'-1' should be",
        ("tail", "--user", "a b"): "'a b'",
        ("demo", "github", "--rate", "0"): "'0' should be",
        ("demo", "shop", "--sale-seconds", "0"): "'0' should be",
        ("node", "--port", "0"): "'0' should be",
        ("up", "--host", "not a host"): "'not a host'",
    }
    for done, words in zip(clarion.many(list(wrong)), wrong.values(), strict=True):
        assert done.code == 2, done
        assert words in done.sentence


def test_settings_that_make_no_sense_are_named(clarion: Shell) -> None:
    secret = "too short"
    cases = {
        "port": ("abc", "'abc'"),
        "timezone": ("Mars/Base", "'Mars/Base'"),
        "database_url": ("mysql://h/d", "postgresql://"),
        "redis_url": ("http://h", "redis://"),
        "token_secret": (secret, "32 bytes"),
    }
    for name, (value, words) in cases.items():
        done = clarion.but(**{name: value})("token", "--user", "a")
        assert done.code == 2
        assert f"CLARION_{name.upper()}" in done.sentence
        assert words in done.sentence
        assert secret not in done.stderr


def test_a_hub_elsewhere_is_not_given_new_secrets(clarion: Shell, tmp_path: Path) -> None:
    bare = Shell({"PATH": os.environ["PATH"]}, tmp_path)
    for done in bare.many([["token", "--user", "a"], ["send", "a", "--title", "x"], ["tail"], ["dashboard"]]):
        assert done.code == 2, done
        assert "CLARION_DATA_DIR" in done.sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.req("R33")
def test_parts_that_are_away_are_named(clarion: Shell) -> None:
    port = supervisor.free_port()
    no_database = clarion.but(database_url=f"postgresql://127.0.0.1:{port}/clarion")
    for done in no_database.many([["migrate"], ["verify"], ["node"], ["generate"]]):
        assert done.code == 1, done
        assert "database" in done.sentence
    done = clarion.but(redis_url=f"redis://127.0.0.1:{port}", port=str(supervisor.free_port()))("node")
    assert done.code == 1
    assert "Redis" in done.sentence
    nowhere = clarion.but(data_dir="/dev/null/nowhere", database_url="", api_key="", redis_url="")
    for done in nowhere.many([["up"], ["migrate"], ["node"]]):
        assert done.code == 2, done
        assert "CLARION_DATA_DIR is '/dev/null/nowhere'" in done.sentence


def test_a_schema_or_partitions_that_do_not_fit_are_refused(
    clarion: Shell, cluster: Cluster, tmp_path: Path
) -> None:
    old = clarion.but(database_url=f"sqlite:///{tmp_path / 'old.db'}")
    for done in old.many([["keys", "list"], ["node"]]):
        assert done.code == 1, done
        assert "clarion migrate" in done.sentence
    newer = clarion.but(database_url=f"sqlite:///{tmp_path / 'new.db'}")
    assert newer("migrate").code == 0
    with create_engine(f"sqlite:///{tmp_path / 'new.db'}").begin() as connection:
        connection.execute(text("UPDATE settings SET value = '99' WHERE name = 'schema'"))
    for done in newer.many([["migrate"], ["generate"]]):
        assert done.code == 1, done
        assert "99" in done.sentence
        assert "newer Clarion" in done.sentence
    other = clarion.but(partitions="3", port=str(supervisor.free_port()))
    for done in other.many([["node"], ["generate"]]):
        assert done.code == 2, done
        assert "CLARION_PARTITIONS is 3" in done.sentence
        assert "8" in done.sentence


def test_a_port_that_is_taken_is_refused(clarion: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for done in clarion.many([["up", "--port", str(port)], ["node", "--port", str(port)]]):
            assert done.code == 2, done
            assert "CLARION_PORT" in done.sentence
            assert str(port) in done.sentence


# ---------------------------------------------------------------- how it ends


def test_output_that_cannot_be_written_is_no_traceback(clarion: Shell) -> None:
    writing = closed_pipe()
    try:
        for args in (["keys", "list"], ["keys", "list", "--json"], ["--help"]):
            done = clarion(*args, stdout=writing)
            assert (done.code, done.stderr) == (1, ""), args
    finally:
        os.close(writing)
    with Path("/dev/full").open("wb") as full:
        done = clarion("token", "--user", "a", stdout=full)
    assert done.code == 1
    assert "No space left" in done.sentence


@pytest.mark.parametrize("role", ["node", "generate"])
def test_ctrl_c_ends_a_role_cleanly(clarion: Shell, role: str) -> None:
    with clarion.but(port=str(supervisor.free_port())).start(role) as running:
        running.note("generator started" if role == "generate" else "startup complete")
        assert running.interrupt() == 0
        assert "Traceback" not in running.said


def test_a_mistake_of_the_program_is_admitted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hub.cli.app import _exit_code

    monkeypatch.setattr(sys, "argv", ["clarion", "token", "--user", "a"])

    def load() -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.delenv("CLARION_LOG_LEVEL", raising=False)
    assert _exit_code(load) == 1
    assert "a mistake of the program: ZeroDivisionError" in capsys.readouterr().err.replace("\n", " ")
    monkeypatch.setenv("CLARION_LOG_LEVEL", "debug")
    with pytest.raises(ZeroDivisionError):
        _exit_code(load)


@pytest.mark.req("I1")
async def test_no_role_works_on_a_redis_that_may_evict_events(
    clarion: Shell, own_valkey: EmbeddedValkey
) -> None:
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.config_set("maxmemory-policy", "allkeys-lfu")
    evicting = clarion.but(redis_url=own_valkey.url, port=str(supervisor.free_port()))
    for done in await asyncio.to_thread(evicting.many, [["node"], ["generate"]]):
        assert done.code == 2, done
        assert "allkeys-lfu" in done.sentence


# ---------------------------------------------------------------- at last, since it takes the node away


@pytest.mark.req("R27")
def test_tail_comes_back_with_the_hub(clarion: Shell, cluster: Cluster) -> None:
    def restart(running: Running) -> None:
        [node] = cluster.nodes
        assert node.process
        node.process.kill()
        running.note("disconnected")

    with clarion.start("tail", "--user", "wanda") as tail:
        tail.note("listening")
        restart(tail)
        server = subprocess.Popen(
            [sys.executable, "-m", "hub", "node"],
            env=clarion.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            tail.note("listening")
            assert clarion("send", "wanda", "--title", "Back again").code == 0
            tail.line("Back again")
            assert tail.interrupt() == 130
        finally:
            server.kill()
            server.wait()
