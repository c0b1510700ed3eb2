"""Commands on the parts themselves: migrate, keys, token, doctor, verify."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import typer

from hub.cli.app import JsonOption, app, settings
from hub.cli.output import print_json, print_table, stdout
from hub.clock import SystemClock
from hub.doctor import examine
from hub.keys import Keys
from hub.model.notifications import rfc3339
from hub.model.vocabulary import is_id
from hub.ports import ApiKey
from hub.tokens import Tokens
from hub.wiring import migrate_database, open_store

T = TypeVar("T")


@app.command(epilog="Example: clarion migrate")
def migrate(as_json: JsonOption = False) -> None:
    """Bring the database's schema to this version. Safe to repeat and to run at the same time."""
    asyncio.run(migrate_database(settings()))
    if as_json:
        print_json({"migrated": True})
    else:
        stdout.print("the schema is the one of this program.")


@app.command(epilog="Example: clarion token --user alice --minutes 60")
def token(
    user: Annotated[str, typer.Option(help="The user's id.")],
    minutes: Annotated[int, typer.Option(min=1, max=525_600, help="How long it is good.")] = 60,
    as_json: JsonOption = False,
) -> None:
    """Print a signed token with which a user's client connects."""
    if not is_id(user):
        raise typer.BadParameter("an id has 1 to 128 of A-Za-z0-9._:@+|~=-.", param_hint="--user")
    config = settings().with_generated_secrets()
    made = Tokens(
        config.token_secrets, SystemClock(), issuer=config.token_issuer, audience=config.token_audience
    ).issue(user, minutes * 60)
    if as_json:
        print_json({"user": user, "token": made, "expires_in_seconds": minutes * 60})
    else:
        stdout.out(made, highlight=False)


keys = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke, rotate.")
app.add_typer(keys, name="keys")


@keys.command(epilog="Example: clarion keys create shop --scope publish --scope read")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[
        list[str], typer.Option(help="publish, users, types, read or admin; repeat for several.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Make a key. Its secret is shown once."""
    key, secret = _with_keys(lambda store: store.create(name, frozenset(scope)))
    _show_new(key, secret, as_json)


@keys.command(name="list", epilog="Example: clarion keys list --json")
def list_keys(as_json: JsonOption = False) -> None:
    """List the keys, never their secrets."""
    found = _with_keys(lambda store: store.list())
    if as_json:
        print_json([_key_json(key) for key in found])
    else:
        rows = [
            (key.id, key.name, " ".join(sorted(key.scopes)), rfc3339(key.created_at_us) or "", _life(key))
            for key in found
        ]
        print_table("API keys", ("id", "name", "scopes", "created", "state"), rows)


@keys.command(epilog="Example: clarion keys revoke key_…")
def revoke(key_id: Annotated[str, typer.Argument(help="The key's id.")], as_json: JsonOption = False) -> None:
    """Refuse a key from now on."""
    _with_keys(lambda store: store.revoke(key_id))
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        stdout.print(f"{key_id} is revoked.")


@keys.command(epilog="Example: clarion keys rotate key_… --overlap-seconds 3600")
def rotate(
    key_id: Annotated[str, typer.Argument(help="The key's id.")],
    overlap_seconds: Annotated[
        int, typer.Option(min=0, help="How long the old secret still works.")
    ] = 86_400,
    as_json: JsonOption = False,
) -> None:
    """Make a new secret with the same scopes; the old one ends after the overlap."""
    key, secret = _with_keys(lambda store: store.rotate(key_id, overlap_seconds))
    _show_new(key, secret, as_json)


@app.command(epilog="Example: clarion doctor")
def doctor(as_json: JsonOption = False) -> None:
    """Examine settings, Redis, database and queue; say what is wrong and what to do."""
    findings = asyncio.run(examine(settings().with_generated_secrets()))
    if as_json:
        print_json(findings)
    else:
        for finding in findings:
            mark = {"ok": "[green]ok[/green]  ", "weak": "[yellow]weak[/yellow]"}.get(
                finding.level, "[red]bad[/red] "
            )
            stdout.print(f"{mark} [bold]{finding.part}[/bold] ", end="")
            stdout.print(finding.sentence, markup=False)
    if any(finding.level != "ok" for finding in findings):
        raise typer.Exit(1)


@app.command(epilog="Example: clarion verify --json")
def verify(as_json: JsonOption = False) -> None:
    """Prove from the tables that every accepted event ended in named states that add up."""

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


def _with_keys(use: Any) -> Any:
    async def call() -> Any:
        config = settings().with_generated_secrets()
        store = await open_store(config)
        try:
            first = config.api_key.get_secret_value() if config.api_key else None
            return await use(Keys(store, SystemClock(), first))
        finally:
            await store.close()

    return _run(call())


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def _show_new(key: ApiKey, secret: str, as_json: bool) -> None:
    if as_json:
        print_json({**_key_json(key), "key": secret})
    else:
        stdout.print(f"{key.id} ({key.name}), scopes: {' '.join(sorted(key.scopes))}")
        stdout.print("the key, shown only now:", style="dim")
        stdout.out(secret, highlight=False)


def _key_json(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": rfc3339(key.created_at_us),
        "expires_at": rfc3339(key.expires_at_us),
        "revoked_at": rfc3339(key.revoked_at_us),
    }


def _life(key: ApiKey) -> str:
    if key.revoked_at_us is not None:
        return "revoked"
    return f"until {rfc3339(key.expires_at_us)}" if key.expires_at_us is not None else "active"
