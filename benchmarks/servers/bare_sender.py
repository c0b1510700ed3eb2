"""What a sender is measured against: ready-made messages over the same number of connections, and nothing else.

    python -m benchmarks.servers.bare_sender mail|push PORT COUNT CONNECTIONS BYTES [PER_SECOND]

Mail is handed to aiosmtplib as it is. A push is encrypted by pywebpush and posted by aiohttp, with one header of VAPID
made before; both on uvloop, as senders are. Prints {"cpu_us", "per_second"} of each message as JSON. With PER_SECOND it
goes no faster than that: whoever keeps the other side awake pays less for each message than who wakes it.
"""

import asyncio
import json
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from os import urandom

import aiohttp
import aiosmtplib
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import Vapid02
from pywebpush import WebPusher

from hub.loops import leave_alone_what_stays, run

SENDER = "shop@example.com"


def subscription(endpoint: str) -> dict[str, object]:
    """A browser's, as PushSubscription.toJSON() says it."""
    point = (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    )
    keys = {
        name: urlsafe_b64encode(raw).rstrip(b"=").decode()
        for name, raw in (("p256dh", point), ("auth", urandom(16)))
    }
    return {"endpoint": endpoint, "keys": keys}


class Numbers:
    """The numbers of messages, in the order and at the pace in which they are sent."""

    def __init__(self, count: int, per_second: int) -> None:
        self._left = iter(range(count))
        self._per_second = per_second
        self._begun = time.monotonic()

    def __aiter__(self) -> "Numbers":
        return self

    async def __anext__(self) -> int:
        number = next(self._left, None)
        if number is None:
            raise StopAsyncIteration
        if self._per_second:
            wait_seconds = self._begun + number / self._per_second - time.monotonic()
            if wait_seconds > 0:
                await asyncio.sleep(wait_seconds)
        return number


async def mail(port: int, numbers: Numbers, size: int) -> None:
    """One connection's part of the mails."""
    head = f"From: {SENDER}\r\nTo: user@example.com\r\nSubject: Paid\r\n\r\n"
    message = (head + ("x" * 70 + "\r\n") * (max(size - len(head), 72) // 72)).encode()
    client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False)
    await client.connect()
    async for number in numbers:
        await client.sendmail(SENDER, [f"u{number}@example.com"], message)
    await client.quit()


async def push(session: aiohttp.ClientSession, port: int, numbers: Numbers, size: int) -> None:
    """One connection's part of the pushes."""
    origin = f"http://127.0.0.1:{port}"
    vapid = Vapid02()
    vapid.generate_keys()
    signed = vapid.sign({"aud": origin, "sub": "mailto:ops@example.com"})["Authorization"]
    browser = subscription(f"{origin}/push/x")
    payload = b"x" * size
    async for number in numbers:
        body = WebPusher(browser).encode(payload, "aes128gcm")["body"]
        headers = {
            "TTL": "2419200",
            "Urgency": "normal",
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "Authorization": signed,
        }
        async with session.post(f"{origin}/push/{number}", data=body, headers=headers) as response:
            await response.read()
            assert response.status == 201


async def _timed(
    work: Callable[[Numbers], Awaitable[None]], count: int, connections: int, per_second: int
) -> None:
    leave_alone_what_stays()
    numbers = Numbers(count, per_second)
    begun, used = time.monotonic(), time.process_time()
    await asyncio.gather(*(work(numbers) for _ in range(connections)))
    spent, seconds = time.process_time() - used, time.monotonic() - begun
    json.dump({"cpu_us": spent * 1e6 / count, "per_second": count / seconds}, sys.stdout)


async def main(kind: str, port: int, count: int, connections: int, size: int, per_second: int = 0) -> None:
    """All of it."""
    if kind == "mail":
        await _timed(lambda numbers: mail(port, numbers, size), count, connections, per_second)
        return
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
        await _timed(lambda numbers: push(session, port, numbers, size), count, connections, per_second)


if __name__ == "__main__":
    run(main(sys.argv[1], *map(int, sys.argv[2:])))
