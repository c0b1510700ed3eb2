"""Commands that talk to a running hub: send, tail, demo."""

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.app import TALK, JsonOption, KeyOption, UrlOption, app, check_id, shared_settings
from hub.cli.client import CommandFailed, HubClient
from hub.cli.output import print_json, stdout

if TYPE_CHECKING:
    from collections.abc import Coroutine

FAST_SALE_SECONDS = 5.0


def _check_file(path: Path | None) -> Path | None:
    if path is not None and str(path) != "-" and (path.is_dir() or not path.exists()):
        raise typer.BadParameter(
            f"{str(path)!r} {'is a folder' if path.is_dir() else 'does not exist'}; give a file."
        )
    return path


@app.command(epilog='Example: clarion send alice --title "Hello" --body "It works."', rich_help_panel=TALK)
def send(
    to: Annotated[list[str] | None, typer.Argument(help="Ids of users.", show_default=False)] = None,
    topic: Annotated[str | None, typer.Option(help="Send to the subscribers of a topic.")] = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="Send to everyone.")] = False,
    type_: Annotated[str | None, typer.Option("--type", help="The event's type; `message` if unset.")] = None,
    title: Annotated[str | None, typer.Option(help="The title that is shown.")] = None,
    body: Annotated[str | None, typer.Option(help="The text below it.")] = None,
    link: Annotated[str | None, typer.Option("--link", help="Where a click leads.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who caused it.")] = None,
    data: Annotated[str | None, typer.Option(help="The event's data, as a JSON object.")] = None,
    event: Annotated[
        Path | None,
        typer.Option(
            callback=_check_file,
            help="A file with the whole event as JSON ('-': standard input), instead of the above.",
        ),
    ] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Makes a repeat harmless.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish one event."""
    audience: list[Any] = [
        *(to or ()),
        *([{"topic": topic}] if topic else ()),
        *([{"everyone": True}] if everyone else ()),
    ]
    fields = {
        "type": type_,
        "title": title,
        "body": body,
        "url": link,
        "actor": actor,
        "data": _json_of(data),
    }
    given = {name: value for name, value in fields.items() if value is not None}
    if event is not None:
        if audience or given:
            raise typer.BadParameter(
                "the file holds the whole event; leave out everything else.", param_hint="--event"
            )
        content = _read_event(event)
    elif not audience:
        raise typer.BadParameter("nobody is named; give a user, --topic or --everyone.", param_hint="TO")
    else:
        content = json.dumps({"to": audience, **given}).encode()
    headers = {"Content-Type": "application/json"}
    if idempotency_key is not None:
        headers["Idempotency-Key"] = _header_value(idempotency_key)
    with HubClient(url, key) as client:
        answer = client.call("POST", "/v1/events", ("id", "status"), content=content, headers=headers)
    if as_json:
        print_json(answer)
    else:
        stdout.print(f"accepted [bold]{answer['id']}[/bold]")


def _json_of(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{text[:80]!r} is not JSON: {error}.", param_hint="--data") from None


def _header_value(text: str) -> str:
    if not text.isascii() or not text.isprintable() or not 0 < len(text) <= 255:
        raise typer.BadParameter(
            f"{text[:80]!r} cannot be a key; it has 1 to 255 printable ASCII characters.",
            param_hint="--idempotency-key",
        )
    return text


def _read_event(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise CommandFailed(f"the file {str(path)!r} cannot be read: {error.strerror}.") from None


@app.command(epilog="Example: clarion tail --user alice", rich_help_panel=TALK)
def tail(
    user: Annotated[
        str | None, typer.Option(help="Follow what this user gets, instead of the live log.")
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow the live log, or one user's notifications, until interrupted."""
    from hub.cli.tailing import follow_log, follow_user

    if user is not None:
        check_id(user, "--user")
    config = shared_settings("token_secret")
    asyncio.run(follow_user(config, url, user, as_json) if user else follow_log(config, url, as_json))


demo = typer.Typer(no_args_is_help=True)
app.add_typer(
    demo,
    name="demo",
    help="Play a story: GitHub's webhooks on your hub, a shop or a social network on one of its own.",
    rich_help_panel=TALK,
)


@demo.command(epilog="Example: clarion demo github --rate 200")
def github(
    rate: Annotated[
        float | None, typer.Option(min=0.1, max=10_000, help="Events per second; at once if unset.")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, max=1000, help="Play the recording so many times.")] = 1,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Play 329 recorded GitHub webhooks as events, for watchers of repositories and a follower of one person."""
    from hub.demo.player import play

    with HubClient(url, key) as client:
        address, secret = client.url, client.key
    summary = asyncio.run(play(address, secret, rate=rate, repeat=repeat, quiet=as_json))
    if as_json:
        print_json(summary)


KeepOption = Annotated[
    bool, typer.Option("--keep", help="Leave the demo's folder, with its database and its hub's log.")
]
FastOption = Annotated[bool, typer.Option("--fast", help="Play it short, for trying and for tests.")]


@demo.command(epilog="Example: clarion demo shop --sale-seconds 20")
def shop(
    sale_seconds: Annotated[
        float, typer.Option(min=1, max=3600, help="How long the sale lasts, with twenty times the traffic.")
    ] = 60,
    fast: FastOption = False,
    keep: KeepOption = False,
    as_json: JsonOption = False,
) -> None:
    """Play a shop on a hub of its own: mails, texts and pushes arrive, mail servers fall, a sale runs.

    Needs nothing that runs and changes nothing of yours. Exit code 0: everything arrived and the ledger balances.
    """
    from hub.demo.stories import play_shop

    _play(play_shop(FAST_SALE_SECONDS if fast else sale_seconds, keep=keep, as_json=as_json))


@demo.command(epilog="Example: clarion demo social")
def social(fast: FastOption = False, keep: KeepOption = False, as_json: JsonOption = False) -> None:
    """Play a social network on a hub of its own: posts, comments, messages, with the app open and closed.

    Needs nothing that runs and changes nothing of yours. Exit code 0: everything arrived and the ledger balances.
    """
    from hub.demo.stories import play_social

    _play(play_social(is_fast=fast, keep=keep, as_json=as_json))


def _play(story: "Coroutine[Any, Any, bool]") -> None:
    from hub.demo.stories import until_signalled

    if not asyncio.run(until_signalled(story)):
        raise typer.Exit(1)
