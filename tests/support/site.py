"""A site of somebody else: a page, and a service worker that is one line of the hub's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def open_site(hub: str) -> AsyncIterator[str]:
    """Serves `/` and `/sw.js` on an origin of its own; the address of the page."""

    async def page(_request: web.Request) -> web.Response:
        return web.Response(
            text="<!doctype html><title>Shop</title><h1>A shop</h1>", content_type="text/html"
        )

    async def worker(_request: web.Request) -> web.Response:
        return web.Response(text=f"importScripts('{hub}/static/push.js');", content_type="text/javascript")

    app = web.Application()
    app.router.add_get("/sw.js", worker)
    app.router.add_get("/{path:.*}", page)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
