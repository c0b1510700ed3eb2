"""SMS through the many services that Apprise knows (`apprise+SCHEME://…`), for those without an adapter of their own.

Apprise answers only yes or no: a no may be a refusal for ever, a full queue or a wrong password, so it counts as a fault
of the provider and is tried again. A no that took as long as a time-out counts as unclear, since the text may have gone
out. There are no receipts. Apprise works in threads of ours, bounded in number and time.
"""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from hub.errors import ConfigError
from hub.model.outcomes import Outcome, RetryAfter, Sent, Unclear
from hub.model.outgoing import Target
from hub.provider_urls import APPRISE, ProviderUrl
from workers.channels.http import in_time

if TYPE_CHECKING:
    from apprise.plugins.base import NotifyBase

CONNECTIONS: Final = 2
CONNECT_SECONDS: Final = 4.0
READ_SECONDS: Final = 8.0
YES_OR_NO: Final = "Apprise answers only yes or no"
_SAMPLE: Final = "+821012345678"


class AppriseProvider:
    """One service behind Apprise (`workers.channels.base.Provider`)."""

    def __init__(self, url: ProviderUrl) -> None:
        """Raises `ConfigError` when Apprise cannot send an SMS with this address."""
        self.name = url.name
        self.connections = CONNECTIONS
        self.per_second: float | None = None
        self._address = url.inner or ""
        check(self._address)
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="apprise")

    async def send(self, message: Any, target: Target) -> Outcome:
        """Carry one `Sms` to one number, in at most the two time-outs and a second."""
        running = self._threads.submit(_notify, self._address, target.address, message.text)
        work = asyncio.wrap_future(running)
        if not await in_time(work, CONNECT_SECONDS + READ_SECONDS + 1):
            if running.cancel():  # no thread had begun with it
                return RetryAfter("busy", "Every thread that speaks to Apprise is waiting.")
            return Unclear("timeout", f"{YES_OR_NO}, and did neither in time.")
        if work.exception() is not None:
            return Unclear("crashed", f"{YES_OR_NO}; it ended with {type(work.exception()).__name__}.")
        said_yes, seconds = work.result()
        if said_yes:
            return Sent("yes", f"{YES_OR_NO}: yes.")
        if seconds >= READ_SECONDS:
            return Unclear("no_in_the_end", f"{YES_OR_NO}: no, after {seconds:.0f} s. It may have gone out.")
        return RetryAfter("no", f"{YES_OR_NO}: no.")

    async def close(self) -> None:
        """Let go of the threads; one that waits for an answer ends by its own time-out."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def check(address: str) -> None:
    """Refuse, with a sentence that shows no secret, what Apprise cannot send an SMS with. Raises `ConfigError`."""
    scheme = f"{APPRISE}{address.partition('://')[0]}://"
    service = instance_of(address, _SAMPLE)
    if service is None:
        raise ConfigError(
            f"CLARION_SMS_PROVIDERS: Apprise does not accept the {scheme} address; its scheme is unknown "
            "or a part is missing or malformed (https://appriseit.com lists the forms)."
        )
    if not _takes_numbers(service):
        raise ConfigError(
            f"CLARION_SMS_PROVIDERS: {scheme} is known to Apprise, but sends to no phone number."
        )
    if service.retry or service.optional:
        raise ConfigError(
            f"CLARION_SMS_PROVIDERS: {scheme} takes no retry= and no optional=: no text is sent twice, no failure is hidden."
        )
    named = str(service.url())  # type: ignore[no-untyped-call]
    if len(service) != 1 or _SAMPLE.lstrip("+") not in named:
        raise ConfigError(
            f"CLARION_SMS_PROVIDERS: {scheme} must name no recipient: each message goes to its own number."
        )


def instance_of(address: str, number: str) -> "NotifyBase | None":
    """Apprise's object for a message to one number; None for an address that it does not know.

    The number goes into `to`, which every service of Apprise with recipients takes beside those in its path.
    """
    from apprise import Apprise

    _silence()
    joint = "&" if "?" in address else "?"
    made = Apprise.instantiate(f"{address}{joint}to={quote(number, safe='')}", suppress_exceptions=True)
    return made or None


def _takes_numbers(service: "NotifyBase") -> bool:
    tokens, arguments = service.template_tokens, service.template_args
    phones = any("phone" in name and rule.get("map_to") == "targets" for name, rule in tokens.items())
    return phones and arguments.get("to", {}).get("alias_of") == "targets"


def _notify(address: str, number: str, text: str) -> tuple[bool, float]:
    """In a thread: send, and tell how long it took. A new object for each message, since each waits between its own."""
    service = instance_of(address, number)
    if service is None:
        return False, 0.0
    service.socket_connect_timeout = CONNECT_SECONDS
    service.socket_read_timeout = READ_SECONDS
    began = time.monotonic()
    said_yes = bool(service.notify(body=text))
    return said_yes, time.monotonic() - began


def _silence() -> None:
    """Apprise's own log repeats tokens and numbers."""
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
