"""The channels that a process serves, as the settings say. A new channel is one file and one line here."""

from collections.abc import Callable, Iterator
from typing import Final

from hub.config import Settings
from hub.model.vocabulary import Channel
from workers.channels.base import Sender
from workers.channels.web_push import web_push_of

_MAKERS: Final[dict[Channel, Callable[[Settings], Sender]]] = {Channel.WEB_PUSH: web_push_of}


def senders_of(settings: Settings) -> Iterator[Sender]:
    """One sender for each addressed channel that can be used. Raises `ConfigError` for a provider that cannot work."""
    for channel in sorted(settings.available_channels):
        if make := _MAKERS.get(channel):
            yield make(settings)
