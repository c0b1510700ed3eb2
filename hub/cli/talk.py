"""Commands that talk to a running hub: send, apply, export, tail, demo."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hub.cli.app import JsonOption, KeyOption, UrlOption, app, settings
from hub.cli.client import CommandFailed, HubClient
from hub.cli.output import print_json, stdout
from hub.cli.tailing import follow_log, follow_user


@app.command(epilog='Example: clarion send alice --title "Hello" --body "It works."')
def send(
    to: Annotated[str | None, typer.Argument(help="A user's id; or use --topic or --everyone.")] = None,
    topic: Annotated[str | None, typer.Option(help="Send to the subscribers of a topic.")] = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="Send to everyone.")] = False,
    type_: Annotated[str, typer.Option("--type", help="The event's type.")] = "message",
    title: Annotated[str | None, typer.Option(help="The title that is shown.")] = None,
    body: Annotated[str | None, typer.Option(help="The text below it.")] = None,
    link: Annotated[str | None, typer.Option("--link", help="Where a click leads.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who caused it.")] = None,
    data: Annotated[str | None, typer.Option(help="The event's data, as JSON.")] = None,
    event: Annotated[
        Path | None, typer.Option(help="A file with the whole event as JSON ('-': standard input).")
    ] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Makes a repeat harmless.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish one event."""
    body_json = (
        _read_event(event) if event else _event(to, topic, everyone, type_, title, body, link, actor, data)
    )
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    with HubClient(settings(), url, key) as client:
        answer = client.call("POST", "/v1/events", content=body_json, headers=headers)
    if as_json:
        print_json(answer)
    else:
        stdout.print(f"accepted [bold]{answer['id']}[/bold]")


def _event(
    to: str | None,
    topic: str | None,
    everyone: bool,
    type_: str,
    title: str | None,
    body: str | None,
    link: str | None,
    actor: str | None,
    data: str | None,
) -> bytes:
    audiences: list[Any] = [to] if to else []
    audiences += [{"topic": topic}] if topic else []
    audiences += [{"everyone": True}] if everyone else []
    if not audiences:
        raise typer.BadParameter("give a user, --topic or --everyone.", param_hint="TO")
    event: dict[str, Any] = {"type": type_, "to": audiences}
    for name, value in (("title", title), ("body", body), ("url", link), ("actor", actor)):
        if value is not None:
            event[name] = value
    if data is not None:
        try:
            event["data"] = json.loads(data)
        except ValueError as error:
            raise typer.BadParameter(f"this is not JSON: {error}.", param_hint="--data") from None
    return json.dumps(event).encode()


def _read_event(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise CommandFailed(f"the file {str(path)!r} cannot be read: {error.strerror}.") from None


@app.command(epilog="Example: clarion apply ./notifications --dry-run")
def apply(
    folder: Annotated[Path, typer.Argument(help="The folder with types/ and categories/.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and compare, change nothing.")] = False,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Define the types and categories of a folder."""
    from hub.definitions import read_folder

    definitions = read_folder(folder)
    parameters = {"dry_run": "true"} if dry_run else {}
    with HubClient(settings(), url, key) as client:
        for name, definition in definitions.categories.items():
            client.call("PUT", f"/v1/categories/{name}", json=definition, params=parameters)
        for name, definition in definitions.types.items():
            client.call("PUT", f"/v1/types/{name}", json=definition, params=parameters)
    counts = {"types": len(definitions.types), "categories": len(definitions.categories), "dry_run": dry_run}
    if as_json:
        print_json(counts)
    else:
        done = "would be applied" if dry_run else "applied"
        stdout.print(f"{counts['types']} types and {counts['categories']} categories {done}.")


@app.command(epilog="Example: clarion export ./notifications")
def export(
    folder: Annotated[Path, typer.Argument(help="Where to write types/ and categories/.")],
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the types and categories of a hub into a folder, as `apply` reads them."""
    from hub.definitions import Definitions, write_folder

    with HubClient(settings(), url, key) as client:
        types = {row["name"]: row["definition"] for row in _pages(client, "/v1/types", "types")}
        categories = {
            row["name"]: row["definition"] for row in _pages(client, "/v1/categories", "categories")
        }
    types.pop("message", None)  # built in
    write_folder(folder, Definitions(types=types, categories=categories))
    if as_json:
        print_json({"types": len(types), "categories": len(categories)})
    else:
        stdout.print(f"{len(types)} types and {len(categories)} categories written to {folder}.")


def _pages(client: HubClient, path: str, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = client.call("GET", path, params={"limit": "100", **({"cursor": cursor} if cursor else {})})
        rows += page[name]
        cursor = page["next"]
        if cursor is None:
            return rows


@app.command(epilog="Example: clarion tail --user alice")
def tail(
    user: Annotated[
        str | None, typer.Option(help="Follow what this user gets, instead of the live log.")
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow the live log (or one user's notifications) as it happens, until interrupted."""
    config = settings().with_generated_secrets()
    follow = follow_user(config, url, user, as_json) if user else follow_log(config, url, as_json)
    asyncio.run(follow)


demo = typer.Typer(no_args_is_help=True, help="Play recorded input through a hub.")
app.add_typer(demo, name="demo")


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

    with HubClient(settings(), url, key) as client:
        address, secret = client.url, client.key
    summary = asyncio.run(play(address, secret, rate=rate, repeat=repeat, quiet=as_json))
    if as_json:
        print_json(summary)
