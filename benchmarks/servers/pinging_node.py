"""A node with all its real parts whose pings come far more often than the product lets them. For one workload only."""

import os
from dataclasses import replace
from typing import Any, Final

from hub.api.app import create_app
from hub.api.live import live_routes
from hub.config import load_settings
from hub.live.server import listen, serve
from hub.loops import run
from hub.wiring import open_core, open_hub, redis_health

HOUR_OF_PINGS: Final = 144  # one every 25 s
PING_SECONDS: Final = 60 / HOUR_OF_PINGS


async def main() -> None:
    """What `clarion node` does, without the pages."""
    config = load_settings(port=int(os.environ["CLARION_PORT"]))
    health = await redis_health(config)
    sockets = listen(config.host, config.port)
    async with open_core(config, "node") as core, open_hub(core, health.durability) as hub:
        interval: Any = PING_SECONDS  # the product has whole seconds
        hub.edge.limits = replace(hub.edge.limits, ping_seconds=interval)
        await serve(create_app(hub, live_routes(hub.edge)), hub.edge, sockets)


if __name__ == "__main__":
    run(main())
