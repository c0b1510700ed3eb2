"""What one would write without thinking about speed: stock uvicorn and Starlette. Run as a child of the benchmarks.

It checks a token at the handshake, broadcasts with `await send_text` in a loop, and its publishing route appends each
event to a Redis stream, awaited, before it answers. No history, no preferences, no log.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import jwt
import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

SECRET = os.environ.get("CLARION_TOKEN_SECRET", "")
REDIS_URL = os.environ.get("CLARION_REDIS_URL")
redis = Redis.from_url(REDIS_URL) if REDIS_URL else None
websockets: set[WebSocket] = set()
queues: set["asyncio.Queue[str]"] = set()


def check(token: str | None) -> dict[str, Any]:
    """The token's claims. Raises `jwt.PyJWTError`."""
    return jwt.decode(token or "", SECRET, algorithms=["HS256"], options={"require": ["exp", "sub"]})


async def listen(websocket: WebSocket) -> None:
    """One client: checked, greeted, kept until it leaves."""
    try:
        claims = check(websocket.query_params.get("token"))
    except jwt.PyJWTError:
        await websocket.close(3500)
        return
    await websocket.accept()
    websockets.add(websocket)
    try:
        await websocket.send_json({"connect": {"client": claims["sub"]}})
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        websockets.discard(websocket)


async def stream(request: Request) -> Response:
    """One EventSource: a queue and a generator."""
    try:
        check(request.query_params.get("token"))
    except jwt.PyJWTError:
        return Response(status_code=401)
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def events() -> AsyncIterator[str]:
        queues.add(queue)
        try:
            yield "event: ready\ndata: {}\n\n"
            while True:
                yield f"data: {await queue.get()}\n\n"
        finally:
            queues.discard(queue)

    return StreamingResponse(events(), media_type="text/event-stream")


async def broadcast(request: Request) -> Response:
    """One message to everybody."""
    text = (await request.body()).decode()
    for queue in queues:
        queue.put_nowait(text)
    for websocket in list(websockets):
        try:
            await websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            websockets.discard(websocket)
    return Response("ok")


async def publish(request: Request) -> Response:
    """One durable append per request."""
    assert redis is not None
    entry = await redis.xadd("bench", {"event": await request.body()})
    return JSONResponse({"id": entry.decode(), "status": "accepted"}, 202)


async def ready(_request: Request) -> Response:
    """Whether it serves."""
    return Response("ok")


app = Starlette(
    routes=[
        Route("/", ready),
        WebSocketRoute("/ws", listen),
        Route("/sse", stream),
        Route("/pub", broadcast, methods=["POST"]),
        Route("/v1/events", publish, methods=["POST"]),
    ]
)

if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="error",
        access_log=False,
        backlog=4096,
        timeout_graceful_shutdown=1,
    )
