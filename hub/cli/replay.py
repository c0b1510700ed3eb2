"""`clarion replay`: dead letters of a running hub are tried again."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from hub.cli.app import OPERATE, JsonOption, KeyOption, UrlOption, app
from hub.cli.client import HubClient
from hub.cli.output import print_json, stdout


class ChannelName(StrEnum):
    """A channel that can have dead deliveries."""

    EMAIL = "email"
    SMS = "sms"
    WEB_PUSH = "web_push"
    MOBILE_PUSH = "mobile_push"


@app.command(
    epilog="Example: clarion replay --channel email --since 2026-12-01T00:00:00Z", rich_help_panel=OPERATE
)
def replay(
    ids: Annotated[
        list[str] | None,
        typer.Argument(help="Ids of deliveries (dlv_…) or rejected events (evt_…).", show_default=False),
    ] = None,
    channel: Annotated[ChannelName | None, typer.Option(help="Those on this channel.")] = None,
    provider: Annotated[str | None, typer.Option(help="Those that this provider decided about.")] = None,
    reason: Annotated[str | None, typer.Option(help="Those that died of this, such as exhausted.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Those made at or after this moment (2026-12-01T00:00:00Z).")
    ] = None,
    events: Annotated[
        bool, typer.Option("--events", help="Events that could not be planned, instead of deliveries.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Everything that is dead.")] = False,
    unknown: Annotated[
        bool,
        typer.Option("--unknown", help="Also what may have arrived: it may then arrive twice."),
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many at most, newest first.")] = 1000,
    url: UrlOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try again what could not be delivered, or planned. What cannot be tried again stays, with its reason."""
    fields = {"channel": channel, "provider": provider, "reason": reason, "since": since}
    chosen: dict[str, str] = {name: str(value) for name, value in fields.items() if value is not None}
    if events:
        chosen["kind"] = "event"
    body = {**_which(ids or [], chosen, everything), "unknown": unknown, "limit": limit}
    with HubClient(url, key) as client:
        answer = client.call("POST", "/v1/dead-letters/replay", ("replayed", "refused"), json=body)
    if as_json:
        print_json(answer)
    else:
        _show(answer)


def _which(ids: list[str], chosen: dict[str, str], everything: bool) -> dict[str, Any]:
    """The part of the request that says what is meant; nothing is meant by saying nothing."""
    if ids and (chosen or everything):
        raise typer.BadParameter("ids say it all; leave out everything else.", param_hint="IDS")
    if len(ids) > 1000:
        raise typer.BadParameter("give at most 1,000 ids at once.", param_hint="IDS")
    if chosen.get("kind") == "event" and len(chosen.keys() - {"kind", "since"}):
        raise typer.BadParameter("of events only --since can be asked.", param_hint="--events")
    if not (ids or chosen or everything):
        raise typer.BadParameter(
            "nothing is named; give ids, --channel, --provider, --reason, --since, --events or --all.",
            param_hint="IDS",
        )
    return {"ids": ids} if ids else {"filter": chosen}


def _show(answer: dict[str, Any]) -> None:
    stdout.print(f"[bold]{answer['replayed']}[/bold] will be tried again.")
    details = {one["reason"]: one["detail"] for one in answer.get("refusals", [])}
    for reason, count in answer["refused"].items():
        stdout.print(f"{count} stay: {details.get(reason, reason)}", markup=False, style="yellow")
