"""`clarion dashboard`: a one-time link into the dashboard. Whoever can read the data folder may have one."""

import asyncio
from typing import Annotated

import typer

from hub.cli.app import JsonOption, app, settings
from hub.cli.output import print_json, stdout
from hub.clock import SystemClock
from hub.model.vocabulary import is_id
from hub.sessions import LINK_SECONDS, OPERATOR
from hub.wiring import open_store, sessions_of


@app.command(epilog="Example: clarion dashboard --minutes 60")
def dashboard(
    name: Annotated[
        str, typer.Option(help="Whom the session belongs to, in logs and for revocation.")
    ] = OPERATOR,
    minutes: Annotated[int, typer.Option(min=1, max=1_440, help="How long the link works.")] = LINK_SECONDS
    // 60,
    as_json: JsonOption = False,
) -> None:
    """Print a link that opens the dashboard, once."""
    if not is_id(name):
        raise typer.BadParameter("a name has 1 to 128 of A-Za-z0-9._:@+|~=-.", param_hint="--name")
    config = settings().with_generated_secrets()

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
        stdout.out(link, highlight=False)
