"""Commands on the parts themselves: migrate, keys, token, doctor, verify."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from hub.cli.app import OPERATE, JsonOption, app, check_id, settings, shared_settings
from hub.cli.output import print_json, print_line, print_table, stdout

if TYPE_CHECKING:
    from hub.keys import Keys
    from hub.ports import ApiKey

T = TypeVar("T")


class Scope(StrEnum):
    """What an API key may do."""

    PUBLISH = "publish"
    USERS = "users"
    TYPES = "types"
    READ = "read"
    ADMIN = "admin"


@app.command(epilog="Example: clarion migrate", rich_help_panel=OPERATE)
def migrate(as_json: JsonOption = False) -> None:
    """Bring the database to this version. Safe to repeat, also at the same time."""
    from hub.wiring import migrate_database, open_store

    async def bring() -> None:
        config = settings()
        await migrate_database(config)
        await (
            await open_store(config)
        ).close()  # a schema that is too new stays as it is, and is refused here

    asyncio.run(bring())
    if as_json:
        print_json({"migrated": True})
    else:
        stdout.print("[green]the database has the schema that this program needs.[/green]")


@app.command(epilog="Example: clarion token --user alice --minutes 60", rich_help_panel=OPERATE)
def token(
    user: Annotated[str, typer.Option(help="The user's id.")],
    minutes: Annotated[int, typer.Option(min=1, max=525_600, help="How long it is good.")] = 60,
    as_json: JsonOption = False,
) -> None:
    """Print a signed token with which a user's client connects."""
    from hub.clock import SystemClock
    from hub.tokens import Tokens

    check_id(user, "--user")
    config = shared_settings("token_secret")
    made = Tokens(
        config.token_secrets, SystemClock(), issuer=config.token_issuer, audience=config.token_audience
    ).issue(user, minutes * 60)
    if as_json:
        print_json({"user": user, "token": made, "expires_in_seconds": minutes * 60})
    else:
        print_line(made)


keys = typer.Typer(no_args_is_help=True)
app.add_typer(keys, name="keys", help="API keys: create, list, revoke, rotate.", rich_help_panel=OPERATE)

KeyId = Annotated[str, typer.Argument(help="The key's id, as `clarion keys list` shows it.")]


@keys.command(epilog="Example: clarion keys create shop --scope publish --scope read")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; repeat it for several.")],
    as_json: JsonOption = False,
) -> None:
    """Make a key. Its secret is shown once."""
    key, secret = _with_keys(lambda found: found.create(name, [one.value for one in scope]))
    _show_new(key, secret, as_json)


@keys.command(name="list", epilog="Example: clarion keys list --json")
def list_keys(as_json: JsonOption = False) -> None:
    """List the keys, never their secrets."""
    found = _with_keys(lambda all_keys: all_keys.list())
    if as_json:
        print_json([_key_json(key) for key in found])
        return
    rows = [
        (key.id, key.name, " ".join(sorted(key.scopes)), _day(key.created_at_us), _life(key)) for key in found
    ]
    print_table(("id", "name", "scopes", "created", "state"), rows)


@keys.command(epilog="Example: clarion keys revoke key_0123456789abcdef")
def revoke(key_id: KeyId, as_json: JsonOption = False) -> None:
    """Refuse a key from now on."""
    _with_keys(lambda found: found.revoke(key_id))
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        stdout.print(
            f"{key_id} is revoked; nodes that checked it a moment ago know within 5 seconds.", markup=False
        )


@keys.command(epilog="Example: clarion keys rotate key_0123456789abcdef --overlap-seconds 3600")
def rotate(
    key_id: KeyId,
    overlap_seconds: Annotated[
        int, typer.Option(min=0, max=31_536_000, help="How long the old secret still works.")
    ] = 86_400,
    as_json: JsonOption = False,
) -> None:
    """Make a new secret with the same scopes; the old one ends after the overlap."""
    key, secret = _with_keys(lambda found: found.rotate(key_id, overlap_seconds))
    _show_new(key, secret, as_json)


@app.command(epilog="Example: clarion doctor", rich_help_panel=OPERATE)
def doctor(as_json: JsonOption = False) -> None:
    """Say what is wrong with settings, Redis, database and queue, and what to do."""
    from hub.doctor import examine

    findings = asyncio.run(examine(settings()))
    if as_json:
        print_json(findings)
    else:
        marks = {"ok": "[green]ok  [/green]", "weak": "[yellow]weak[/yellow]", "bad": "[red]bad [/red]"}
        for finding in findings:
            stdout.print(f"{marks[finding.level]}  [bold]{finding.part:<8}[/bold]  ", end="")
            stdout.print(finding.sentence, markup=False)
    if any(finding.level != "ok" for finding in findings):
        raise typer.Exit(1)


@app.command(epilog="Example: clarion verify --json", rich_help_panel=OPERATE)
def verify(as_json: JsonOption = False) -> None:
    """Prove from the tables that every accepted event ended in states that add up."""
    from hub.wiring import open_store

    async def check() -> list[str]:
        store = await open_store(settings())
        try:
            return await store.ledger()
        finally:
            await store.close()

    faults = asyncio.run(check())
    if as_json:
        print_json({"balanced": not faults, "faults": faults})
    else:
        for fault in faults:
            stdout.print(fault, markup=False, style="red")
        if not faults:
            stdout.print("[green]the ledger balances.[/green]")
    if faults:
        raise typer.Exit(1)


def _with_keys(use: "Callable[[Keys], Awaitable[T]]") -> T:
    from hub.clock import SystemClock
    from hub.keys import Keys
    from hub.wiring import open_store

    async def call() -> T:
        config = shared_settings()
        store = await open_store(config)
        try:
            first = config.api_key.get_secret_value() if config.api_key else None
            return await use(Keys(store, SystemClock(), first))
        finally:
            await store.close()

    return asyncio.run(call())


def _show_new(key: "ApiKey", secret: str, as_json: bool) -> None:
    if as_json:
        print_json({**_key_json(key), "key": secret})
        return
    stdout.print(f"{key.id} ({key.name}), scopes: {' '.join(sorted(key.scopes))}", markup=False)
    stdout.print("the key, shown only now:", style="dim")
    print_line(secret)


def _key_json(key: "ApiKey") -> dict[str, Any]:
    from hub.model.notifications import rfc3339

    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": rfc3339(key.created_at_us) if key.created_at_us else None,
        "expires_at": rfc3339(key.expires_at_us),
        "revoked_at": rfc3339(key.revoked_at_us),
    }


def _day(moment_us: int | None) -> str:
    """A moment to the minute; nothing for a key that stands in the settings."""
    from hub.model.notifications import rfc3339

    return (rfc3339(moment_us) or "")[:16].replace("T", " ") if moment_us else ""


def _life(key: "ApiKey") -> str:
    from hub.clock import SystemClock
    from hub.keys import is_alive

    if key.revoked_at_us is not None:
        return "revoked"
    if not is_alive(key, SystemClock().now_us()):
        return "expired"
    return f"until {_day(key.expires_at_us)}" if key.expires_at_us is not None else "active"
