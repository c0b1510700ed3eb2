"""The channels that a process serves, as the settings say. A new channel is one file and one line here."""

from collections.abc import Callable, Iterator
from email.utils import parseaddr
from typing import Final

from hub.config import Settings
from hub.model.vocabulary import Channel
from hub.ports import Clock
from workers.channels.base import Sender
from workers.channels.email import email_sender
from workers.channels.mobile_push import mobile_push_sender
from workers.channels.sms import sms_sender
from workers.channels.web_push import web_push_of

_Maker = Callable[[Settings, Clock], Sender]


def _email(settings: Settings, clock: Clock) -> Sender:  # noqa: ARG001 - all makers are called alike
    assert settings.email_from is not None  # settings with mail servers have a sender
    domain = parseaddr(settings.email_from)[1].rpartition("@")[2]
    return email_sender(settings.providers(Channel.EMAIL), settings.email_from, domain)


def _sms(settings: Settings, clock: Clock) -> Sender:
    return sms_sender(settings.providers(Channel.SMS), settings.public.url, clock)


def _mobile_push(settings: Settings, clock: Clock) -> Sender:
    return mobile_push_sender(settings.providers(Channel.MOBILE_PUSH), clock)


MAKERS: Final[dict[Channel, _Maker]] = {
    Channel.EMAIL: _email,
    Channel.SMS: _sms,
    Channel.WEB_PUSH: web_push_of,
    Channel.MOBILE_PUSH: _mobile_push,
}


def senders_of(settings: Settings, clock: Clock) -> Iterator[Sender]:
    """One sender for each addressed channel that can be used. Raises `ConfigError` for a provider that cannot work."""
    for channel in sorted(settings.available_channels):
        if channel in MAKERS:
            yield MAKERS[channel](settings, clock)
