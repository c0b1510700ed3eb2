"""Plays a story from the command line: sets the stage, plays, cleans up, and says whether it ended well.

SIGINT and SIGTERM end it at once, and cleanly: its processes stop, its folder is removed.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from rich.console import Console

from hub.demo.shop.orders import SENDER
from hub.demo.shop.story import ShopStory
from hub.demo.social import story as social
from hub.demo.stage import Stage, staged
from hub.demo.teller import Teller

T = TypeVar("T")
Play = Callable[[Stage], Awaitable[None]]


async def play_shop(sale_seconds: float, *, keep: bool = False, as_json: bool = False) -> bool:
    """The shop (R36). True: everything arrived and the ledger balances."""
    return await _play(
        "A shop",
        "It sells tea. Its hub, two mail servers, an SMS gateway and a push service start on this machine.",
        SENDER,
        lambda stage: ShopStory(stage, sale_seconds).play(),
        keep=keep,
        as_json=as_json,
    )


async def play_social(*, is_fast: bool = False, keep: bool = False, as_json: bool = False) -> bool:
    """The social network (R37). True: everything arrived and the ledger balances."""
    return await _play(
        "A social network",
        "It has four members. Its hub, a mail server and a push service start on this machine.",
        social.SENDER,
        lambda stage: social.SocialStory(stage, is_fast=is_fast).play(),
        keep=keep,
        as_json=as_json,
    )


async def _play(title: str, words: str, sender: str, play: Play, *, keep: bool, as_json: bool) -> bool:
    teller = Teller(Console(highlight=False), as_json=as_json)
    teller.title(title, words)
    async with staged(teller, sender, keep=keep) as stage:
        await play(stage)
        if keep:
            teller.note(f"The database and the hub's log stay in {stage.hub.folder}.")
        return not stage.faults


async def until_signalled(work: Coroutine[Any, Any, T]) -> T:
    """Do the work; a signal cancels it. Raises `KeyboardInterrupt` when one did."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    signalled = False

    def stop() -> None:
        nonlocal signalled
        signalled = True
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if signalled:
            raise KeyboardInterrupt from None
        raise
