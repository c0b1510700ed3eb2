"""The roles: `clarion node`, `clarion generate`, and `clarion up`, which starts everything on one machine."""

import asyncio
import signal
import sys
from typing import Annotated

import typer

from hub.children import Launch
from hub.cli.app import app, settings
from hub.cli.client import reachable
from hub.cli.output import stdout
from hub.clock import SystemClock
from hub.config import Settings
from hub.leases import LeaseKeeper
from hub.logs import configure_logging, get_logger
from hub.loops import run
from hub.supervisor import Part, Supervisor, ensure_port_free, free_port, http_ready
from hub.tokens import Tokens
from hub.wiring import (
    embedded_redis,
    generator_of,
    ingest_of,
    migrate_database,
    open_core,
    open_hub,
    open_store,
    owner_name,
    redis_health,
    sessions_of,
)

log = get_logger(__name__)

DEMO_USER = "alice"
TOKEN_SECONDS = 30 * 86_400


@app.command(epilog="Example: CLARION_REDIS_URL=redis://… CLARION_DATABASE_URL=postgresql://… clarion node")
def node(
    host: Annotated[str | None, typer.Option(help="Where to listen; CLARION_HOST if unset.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="CLARION_PORT if unset.")] = None,
) -> None:
    """Run a hub node: API, live connections and pages. Any number of them share the work."""
    config = settings(host=host, port=port).with_generated_secrets()
    configure_logging(config, "node")
    run(_node(config))


async def _node(config: Settings) -> None:
    from hub.api.app import create_app
    from hub.api.live import live_routes
    from hub.live.server import listen, serve
    from web.routes import page_routes

    health = await redis_health(config)
    if health.weakness:
        log.warning("an accepted event may be lost in a crash", reason=health.weakness)
    sockets = listen(config.host, config.port)
    async with open_core(config, "node") as core, open_hub(core, health.durability) as hub:
        routes = [*live_routes(hub.edge), *page_routes(hub)]
        proxies = [str(network) for network in config.trusted_proxies]
        await serve(create_app(hub, routes), hub.edge, sockets, trusted_proxies=proxies)


@app.command(epilog="Example: clarion generate")
def generate() -> None:
    """Run a generator: events become notifications. Any number of them share the partitions."""
    config = settings().with_generated_secrets()
    configure_logging(config, "generator")
    run(_generate(config))


async def _generate(config: Settings) -> None:
    from workers.scheduler import Scheduler

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_core(config, "generator") as core:
        generator = generator_of(core)
        scheduler = Scheduler(
            core.store,
            core.queue,
            core.clock,
            partitions=config.partitions,
            retention_days=config.retention_days,
        )
        owner = owner_name()
        keepers = [
            generator.keeper,
            LeaseKeeper(core.store, owner, "ingest", ["ingest"], ingest_of(core).work),
            LeaseKeeper(core.store, owner, "scheduler", ["scheduler"], scheduler.work),
        ]
        tasks = [asyncio.create_task(keeper.run()) for keeper in keepers]
        log.info("generator started")
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, stopped):
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error
    log.info("generator drained")


@app.command(epilog="Example: clarion up")
def up(
    host: Annotated[str | None, typer.Option(help="Where to listen; CLARION_HOST if unset.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="CLARION_PORT if unset.")] = None,
) -> None:
    """Start everything on this machine: embedded Valkey (unless CLARION_REDIS_URL), node and generator."""
    config = settings(host=host, port=port).with_generated_secrets()
    configure_logging(config, "up")
    ensure_port_free(config.host, config.port)
    asyncio.run(_up(config))


async def _up(config: Settings) -> None:
    parts = []
    metrics_port = str(free_port())  # the generator's, shown by the node beside its own
    shared: dict[str, str] = {}
    node_environment = {
        "CLARION_HOST": config.host,
        "CLARION_PORT": str(config.port),
        "CLARION_METRICS_PEERS": f"http://127.0.0.1:{metrics_port}/metrics",
    }
    generator_environment = {"CLARION_HOST": "127.0.0.1", "CLARION_METRICS_PORT": metrics_port}
    if config.is_embedded_redis:
        valkey = embedded_redis(config)
        shared["CLARION_REDIS_URL"] = valkey.url
        parts.append(
            Part(
                "valkey",
                valkey.launch,
                ready=valkey.is_ready,
                stage=0,
                output=valkey.log_path,
                explain=valkey.last_words,
            )
        )
    await migrate_database(config)
    node_ready = http_ready(reachable(config.host), config.port)
    parts.append(Part("node", lambda: _launch("node", shared | node_environment), ready=node_ready))
    parts.append(Part("generator", lambda: _launch("generate", shared | generator_environment)))
    await Supervisor(config.data_dir, parts, on_ready=lambda: _greet(config)).run()


def _launch(command: str, environment: dict[str, str]) -> Launch:
    return Launch((sys.executable, "-m", "hub", command), environment)


async def _greet(config: Settings) -> None:
    """Print what one needs to try it: a dashboard link, a key, a token, and lines that work as they are."""
    store = await open_store(config)
    try:
        link = await sessions_of(config, store, SystemClock()).create_link()
    finally:
        await store.close()
    base = config.public.url
    token = Tokens(
        config.token_secrets, SystemClock(), issuer=config.token_issuer, audience=config.token_audience
    ).issue(DEMO_USER, TOKEN_SECONDS)
    assert config.api_key is not None
    key = config.api_key.get_secret_value()
    event = f'{{"to": "{DEMO_USER}", "title": "Hello", "body": "It works."}}'
    stdout.print(
        "\n[bold green]Clarion is up.[/bold green]  Stop it with Ctrl-C; everything stays in ", end=""
    )
    stdout.print(f"{config.data_dir}.\n", markup=False)
    stdout.print("[bold]Dashboard[/bold] (the link works once, for 15 minutes)")
    stdout.out(f"  {base}/dashboard?link={link}\n", highlight=False)
    stdout.print("[bold]API key[/bold]")
    stdout.out(f"  {key}\n", highlight=False)
    stdout.print(f"[bold]Token for {DEMO_USER}[/bold]")
    stdout.out(f"  {token}\n", highlight=False)
    stdout.print("[bold]Listen[/bold]")
    stdout.out(f"  curl -N '{base}/v1/me/stream?token={token}'\n", highlight=False)
    stdout.print("  in a page's script:")
    stdout.out(
        f"  new EventSource('{base}/v1/me/stream?token={token}')"
        ".addEventListener('notification', e => console.log(e.data))\n",
        highlight=False,
    )
    stdout.print("[bold]Publish[/bold]")
    stdout.out(
        f"  curl {base}/v1/events -H 'Authorization: Bearer {key}' "
        f"-H 'Content-Type: application/json' -d '{event}'\n",
        highlight=False,
    )
    sys.stdout.flush()
