"""The channels that a process serves, as the settings say. A new channel is one file and one line here."""

from collections.abc import Callable, Iterator
from email.utils import parseaddr
from typing import Final
from urllib.parse import urlsplit

from hub.config import Settings
from hub.model.vocabulary import Channel
from hub.ports import Clock
from workers.channels.base import Sender
from workers.channels.mobile_push import mobile_push_sender
from workers.channels.sms import sms_sender
from workers.channels.web_push import web_push_sender

_Maker = Callable[[Settings, Clock], Sender]


def _sms(settings: Settings, clock: Clock) -> Sender:
    return sms_sender(settings.providers(Channel.SMS), settings.public.url, clock)


def _mobile_push(settings: Settings, clock: Clock) -> Sender:
    return mobile_push_sender(settings.providers(Channel.MOBILE_PUSH), clock)


def _web_push(settings: Settings, clock: Clock) -> Sender:
    assert settings.vapid_private_key is not None  # made with the other generated secrets
    key = settings.vapid_private_key.get_secret_value()
    return web_push_sender(key, vapid_subject(settings), settings.push_allowed_hosts, clock)


MAKERS: Final[dict[Channel, _Maker]] = {
    Channel.SMS: _sms,
    Channel.WEB_PUSH: _web_push,
    Channel.MOBILE_PUSH: _mobile_push,
}


def senders_of(settings: Settings, clock: Clock) -> Iterator[Sender]:
    """One sender for each addressed channel that can be used. Raises `ConfigError` for a provider that cannot work."""
    for channel in sorted(settings.available_channels):
        if channel in MAKERS:
            yield MAKERS[channel](settings, clock)


def vapid_subject(settings: Settings) -> str:
    """Whom push services may ask (RFC 8292 §2.1): the given one, else whoever sends the mails, else the hub itself."""
    if settings.vapid_subject:
        return settings.vapid_subject
    if settings.email_from:
        return f"mailto:{parseaddr(settings.email_from)[1]}"
    url = settings.public.url
    return url if url.startswith("https://") else f"mailto:clarion@{urlsplit(url).hostname}"
