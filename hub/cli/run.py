"""The roles: `clarion node`, `clarion generate`, `clarion work`, and `clarion up`, which starts everything on one machine."""

import asyncio
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli.app import RUN, JsonOption, app, settings
from hub.cli.client import reachable
from hub.cli.output import print_json, print_line, stdout

if TYPE_CHECKING:
    from hub.config import Settings
    from hub.supervisor import Part

DEMO_USER = "alice"
TOKEN_SECONDS = 30 * 86_400

HostOption = Annotated[str | None, typer.Option(help="Where to listen; CLARION_HOST if unset.")]
PortOption = Annotated[int | None, typer.Option(min=1, max=65_535, help="CLARION_PORT if unset.")]
NodesOption = Annotated[
    int, typer.Option(min=1, max=64, help="Hub nodes, which share the port; one per core.")
]
GeneratorsOption = Annotated[int, typer.Option(min=1, max=64, help="Generators, which share the partitions.")]
SendersOption = Annotated[int, typer.Option(min=1, max=64, help="Senders, which share the deliveries.")]


@app.command(epilog="Example: clarion up --port 8080 --nodes 2", rich_help_panel=RUN)
def up(
    host: HostOption = None,
    port: PortOption = None,
    nodes: NodesOption = 1,
    generators: GeneratorsOption = 1,
    senders: SendersOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Start everything on this machine, with embedded parts where the settings name none."""
    from hub.cli.parts import parts_of
    from hub.logs import configure_logging
    from hub.shared_port import held_port, require_sharing

    require_sharing(nodes)
    config = settings(host=host, port=port).with_generated_secrets()
    configure_logging(config, "up")
    with held_port(config.host, config.port):
        asyncio.run(_up(config, parts_of(config, nodes, generators, senders), as_json))


async def _up(config: "Settings", parts: "Sequence[Part]", as_json: bool) -> None:
    from hub.supervisor import Supervisor
    from hub.wiring import migrate_database

    await migrate_database(config)
    await Supervisor(config.data_dir, parts, on_ready=lambda: _greet(config, as_json)).run()


async def _greet(config: "Settings", as_json: bool) -> None:
    """Print what one needs to try it: a dashboard link, a key, a token, and lines that work as they are."""
    from hub.clock import SystemClock
    from hub.tokens import Tokens
    from hub.wiring import open_store, sessions_of

    clock = SystemClock()
    store = await open_store(config)
    try:
        link = await sessions_of(config, store, clock).create_link()
    finally:
        await store.close()
    base = config.public.url
    tokens = Tokens(config.token_secrets, clock, issuer=config.token_issuer, audience=config.token_audience)
    token = tokens.issue(DEMO_USER, TOKEN_SECONDS)
    assert config.api_key is not None
    key = config.api_key.get_secret_value()
    dashboard = f"{base}/dashboard?link={link}"
    if as_json:
        print_json({"url": base, "dashboard": dashboard, "api_key": key, "user": DEMO_USER, "token": token})
        return
    event = f'{{"to": "{DEMO_USER}", "title": "Hello", "body": "It works."}}'
    stdout.print(
        "\n[bold green]Clarion is up.[/bold green]  Stop it with Ctrl-C; everything stays in ", end=""
    )
    stdout.print(f"{config.data_dir}.\n", markup=False)
    _show("Dashboard", f"{dashboard}", "the link works once, for 15 minutes")
    _show("API key", key)
    _show(f"Token for {DEMO_USER}", token, "for 30 days")
    listen = f"{base}/v1/me/stream?token={token}"
    _show("Listen", f"curl -N '{listen}'", "or in a page's script, as below")
    print_line(f"  new EventSource('{listen}').addEventListener('notification', e => console.log(e.data))\n")
    _show(
        "Publish",
        f"curl {base}/v1/events -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{event}'",
    )


def _show(title: str, line: str, note: str = "") -> None:
    """A title, and below it a line to copy."""
    stdout.print(f"[bold]{title}[/bold]{f'  [dim]{note}[/dim]' if note else ''}")
    print_line(f"  {line}\n")


@app.command(
    epilog="Example: CLARION_REDIS_URL=redis://… CLARION_DATABASE_URL=postgresql://… clarion node",
    rich_help_panel=RUN,
)
def node(host: HostOption = None, port: PortOption = None) -> None:
    """Run a hub node: API, live connections, pages. Any number share the work."""
    from hub.logs import configure_logging
    from hub.loops import run

    config = settings(host=host, port=port).with_generated_secrets()
    configure_logging(config, config.process_name or "node")
    run(_node(config))


async def _node(config: "Settings") -> None:
    from hub.api.app import create_app
    from hub.api.live import live_routes
    from hub.live.server import listen, serve
    from hub.logs import get_logger
    from hub.loops import leave_alone_what_stays
    from hub.shared_port import refuse_strangers
    from hub.wiring import open_core, open_hub, redis_health
    from web.routes import page_routes

    health = await redis_health(config)
    if health.weakness:
        get_logger(__name__).warning("an accepted event may be lost in a crash", reason=health.weakness)
    sockets = listen(config.host, config.port)
    if config.direct_port is not None:
        sockets += listen("127.0.0.1", config.direct_port, reuse_port=False)
    async with open_core(config, "node") as core, open_hub(core, health.durability) as hub:
        await refuse_strangers(reachable(config.host), config.port, core.deployment)
        routes = [*live_routes(hub.edge), *page_routes(hub)]
        proxies = [str(network) for network in config.trusted_proxies]
        app = create_app(hub, routes)
        leave_alone_what_stays()
        await serve(app, hub.edge, sockets, trusted_proxies=proxies)


@app.command(epilog="Example: clarion generate", rich_help_panel=RUN)
def generate() -> None:
    """Run a generator: events become notifications. Any number share the partitions."""
    from hub.logs import configure_logging
    from hub.loops import run

    config = settings().with_generated_secrets()
    configure_logging(config, config.process_name or "generator")
    run(_generate(config))


async def _generate(config: "Settings") -> None:
    from hub.errors import QueueUnavailable
    from hub.leases import LeaseKeeper
    from hub.logs import get_logger
    from hub.loops import leave_alone_what_stays
    from hub.wiring import generator_of, ingest_of, open_core, owner_name, redis_health
    from workers.scheduler import Scheduler

    log = get_logger(__name__)
    try:
        await redis_health(config)  # refuses one that may throw waiting events away
    except QueueUnavailable as away:
        log.warning("Redis is away; the generator waits for it", reason=str(away))
    stop = stop_on_signals()
    async with open_core(config, "generator") as core:
        generator = generator_of(core)
        scheduler = Scheduler(
            core.store,
            core.queue,
            core.clock,
            partitions=config.partitions,
            retention_days=config.retention_days,
        )
        keepers = [
            generator.keeper,
            LeaseKeeper(core.store, owner_name(), "ingest", ["ingest"], ingest_of(core).work),
            LeaseKeeper(core.store, owner_name(), "scheduler", ["scheduler"], scheduler.work),
        ]
        leave_alone_what_stays()
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


@app.command(epilog="Example: clarion work", rich_help_panel=RUN)
def work() -> None:
    """Run a sender: deliveries by e-mail, SMS and push. Any number share the work."""
    from hub.logs import configure_logging
    from hub.loops import run

    config = settings().with_generated_secrets()
    configure_logging(config, config.process_name or "sender")
    run(_work(config))


async def _work(config: "Settings") -> None:
    from hub.logs import get_logger
    from hub.loops import leave_alone_what_stays
    from hub.wiring import open_core
    from workers.role import SenderRole

    log = get_logger(__name__)
    stop = stop_on_signals()
    async with open_core(config, "sender") as core:
        role = SenderRole(core)
        leave_alone_what_stays()
        log.info("sender started")
        await role.run(stop)
    log.info("sender drained")


def stop_on_signals() -> asyncio.Event:
    """Set when this process is asked to end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
