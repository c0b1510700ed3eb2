"""Commands on types and categories as files: apply, export. A folder is applied whole, or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hub.cli.app import DEFINE, JsonOption, KeyOption, UrlOption, app
from hub.cli.client import CommandFailed, HubClient
from hub.cli.output import print_json, stdout

KINDS = ("categories", "types")  # types name categories


@app.command(epilog="Example: clarion apply ./notifications --dry-run", rich_help_panel=DEFINE)
def apply(
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="The folder with types/ and categories/.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and compare, change nothing.")] = False,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Define the types and categories of a folder."""
    from hub.definitions import read_folder

    definitions = read_folder(folder)
    wanted = {"types": definitions.types, "categories": definitions.categories}
    with HubClient(url, key) as client:
        states = {kind: _compare(client, kind, wanted[kind]) for kind in KINDS}
        if not dry_run:  # everything was checked: what fails now is the hub
            for kind in KINDS:
                for name in (name for name, state in states[kind].items() if state != "unchanged"):
                    _put(client, kind, name, wanted[kind][name])
    if as_json:
        print_json({"dry_run": dry_run, **states})
        return
    for kind in reversed(KINDS):
        _tell(kind, states[kind], dry_run)


def _compare(client: HubClient, kind: str, wanted: Mapping[str, Any]) -> dict[str, str]:
    """What applying would do to each, checked by the hub: new, changed or unchanged."""
    known = {row["name"]: row for row in client.pages(f"/v1/{kind}", kind)}
    states = {}
    for name, definition in wanted.items():
        checked = _put(client, kind, name, definition, dry_run="true")
        before = known.get(name)
        same = before is not None and before["version"] > 0 and _bare(before) == _bare(checked)
        states[name] = "unchanged" if same else "changed" if before is not None else "new"
    return states


def _bare(row: Mapping[str, Any]) -> dict[str, Any]:
    """A definition as its file says it, without the name and the version that a hub adds."""
    return {key: value for key, value in row.items() if key not in ("name", "version")}


def _put(client: HubClient, kind: str, name: str, definition: Any, **parameters: str) -> Any:
    try:
        path = f"/v1/{kind}/{quote(name, safe='')}"
        return client.call("PUT", path, ("name", "version"), json=definition, params=parameters)
    except CommandFailed as failed:
        if failed.status in (None, 401, 403):
            raise
        raise CommandFailed(f"{kind}/{name}.toml: {failed}") from None


def _tell(kind: str, states: Mapping[str, str], dry_run: bool) -> None:
    for name, state in states.items():
        if state != "unchanged" and (dry_run or state == "changed"):
            stdout.print(f"  {state:<8} {kind}/{name}", markup=False, style="dim")
    counts = [
        f"{count} {state}"
        for state in ("new", "changed", "unchanged")
        if (count := [*states.values()].count(state))
    ]
    said = "would be applied" if dry_run else "applied"
    stdout.print(f"{_counted(len(states), kind)} {said}{': ' if counts else ''}{', '.join(counts)}.")


def _counted(count: int, kind: str) -> str:
    return f"{count} {kind if count != 1 else {'types': 'type', 'categories': 'category'}[kind]}"


@app.command(epilog="Example: clarion export ./notifications", rich_help_panel=DEFINE)
def export(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where to write types/ and categories/.")],
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a hub's types and categories into a folder, as `apply` reads them."""
    from hub.definitions import Definitions, write_folder

    with HubClient(url, key) as client:
        found = {
            kind: {row["name"]: _bare(row) for row in client.pages(f"/v1/{kind}", kind) if row["version"]}
            for kind in KINDS  # version 0 is built in
        }
    write_folder(folder, Definitions(**found))
    if as_json:
        print_json(
            {
                "folder": str(folder),
                "types": sorted(found["types"]),
                "categories": sorted(found["categories"]),
            }
        )
    else:
        sums = " and ".join(_counted(len(found[kind]), kind) for kind in reversed(KINDS))
        stdout.print(f"{sums} written to {folder}.", markup=False)
