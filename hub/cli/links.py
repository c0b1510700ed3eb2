"""`clarion dashboard`: a one-time link into the dashboard. Whoever can read the data folder may have one."""

import asyncio
from typing import Annotated

import typer

from hub.cli.app import OPERATE, JsonOption, app, check_id, shared_settings
from hub.cli.output import print_json, print_line


@app.command(epilog="Example: clarion dashboard --minutes 60", rich_help_panel=OPERATE)
def dashboard(
    name: Annotated[
        str, typer.Option(help="Whom the session belongs to, in logs and for revocation.")
    ] = "operator",
    minutes: Annotated[int, typer.Option(min=1, max=1_440, help="How long the link works.")] = 15,
    as_json: JsonOption = False,
) -> None:
    """Print a link that opens the dashboard, once."""
    from hub.clock import SystemClock
    from hub.wiring import open_store, sessions_of

    check_id(name, "--name")
    config = shared_settings("token_secret")

    async def create() -> str:
        store = await open_store(config)
        try:
            return await sessions_of(config, store, SystemClock()).create_link(name, minutes * 60)
        finally:
            await store.close()

    link = f"{config.public.url}/dashboard?link={asyncio.run(create())}"
    if as_json:
        print_json({"link": link, "operator": name, "expires_in_seconds": minutes * 60})
    else:
        print_line(link)
