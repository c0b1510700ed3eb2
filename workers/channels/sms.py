"""SMS: what a message says, which numbers get one, and the providers that carry it.

A message is never sent again once it may have gone out: people pay for it with their attention, and it cannot be taken
back. Numbers that cannot exist are refused before anything is sent; numbers that only look unassigned are tried, since
new ranges open sooner than lists of them are updated.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import phonenumbers
from msgspec import Struct

from hub.model.addresses import is_phone
from hub.model.outcomes import GiveUp, Outcome
from hub.model.outgoing import Outgoing, Target
from hub.model.sms import fit
from hub.model.vocabulary import Channel
from hub.origins import is_loopback_host
from hub.ports import Clock
from hub.provider_urls import ProviderUrl
from hub.sms_receipts import callback_url
from workers.channels.apprise_sms import AppriseProvider
from workers.channels.base import ComposeError, Provider
from workers.channels.http import HttpClient
from workers.channels.texts import own_texts, short_text
from workers.channels.twilio import TwilioProvider

SEGMENTS: Final = 10
INVALID_NUMBER: Final = "invalid_number"


class Sms(Struct, frozen=True):
    """A message, the same for every number."""

    text: str


class SmsSender:
    """The SMS channel (`workers.channels.base.Sender`)."""

    channel = Channel.SMS
    repeats = False

    def __init__(self, providers: Sequence[Provider]) -> None:
        self.providers: Sequence[Provider] = [Checked(provider) for provider in providers]

    def compose(self, outgoing: Outgoing) -> Sms:
        """The text, in at most ten segments. Raises `ComposeError` when there is nothing to say."""
        own = own_texts(outgoing, Channel.SMS).get("text")
        if own is not None:
            text = fit("", own, "", SEGMENTS)
        else:
            short = short_text(outgoing)
            before = short.title + "\n" if short.title and short.body else short.title
            after = f"\n{short.url}" if short.url else ""
            text = fit(before, short.body, after, SEGMENTS).strip()
        if not text:
            raise ComposeError(f"The text of type {outgoing.kind.name!r} came out empty.")
        return Sms(text)


class Checked:
    """A provider that is only asked for numbers that can exist."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.name = provider.name
        self.connections = provider.connections
        self.per_second = provider.per_second

    async def send(self, message: Sms, target: Target) -> Outcome:
        """Carry one message to one number."""
        if problem := number_problem(target.address):
            return GiveUp(INVALID_NUMBER, problem, target_is_gone=True)
        return await self._provider.send(message, target)

    async def close(self) -> None:
        """Let go of connections."""
        await self._provider.close()


def number_problem(number: str) -> str | None:
    """Why no such number can exist, in a sentence that does not show it; None when it can."""
    try:
        if not is_phone(number):
            return "The number is not an international one, with a plus and 7 to 15 digits."
        reason = phonenumbers.is_possible_number_with_reason(phonenumbers.parse(number, None))
    except phonenumbers.NumberParseException:
        return "The number has a country code that does not exist, or is no number at all."
    if reason == phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    if reason == phonenumbers.ValidationResult.INVALID_COUNTRY_CODE:
        return "The number has a country code that does not exist."
    return "The number has too few or too many digits for its country."


def sms_sender(
    urls: Sequence[ProviderUrl], public_url: str, clock: Clock, http: HttpClient | None = None
) -> SmsSender:
    """The channel on its configured providers, in their order. Raises `ConfigError` for an address Apprise cannot use.

    `public_url`: where providers report what became of a message. `http`: the session that senders of a process share.
    """
    shared = http or HttpClient()
    providers: list[Provider] = []
    for url in urls:
        if url.inner is not None:
            providers.append(AppriseProvider(url))
        else:
            providers.append(TwilioProvider(url, _callback(url, public_url), clock, shared))
    return SmsSender(providers)


def _callback(url: ProviderUrl, public_url: str) -> str | None:
    """Where a gateway reports to; None for one elsewhere that could not reach a hub on this machine alone."""
    if is_loopback_host(urlsplit(public_url).hostname or "") and not is_loopback_host(url.host):
        return None
    return callback_url(url, public_url)
