"""Settings of the addressed channels: providers, senders, push keys. A part of `hub.config.Settings`.

An address of a provider is taken apart here already, so that a mistake in typing stops the start and not the first mail.
"""

import re
from email.utils import parseaddr
from typing import Annotated, Any, Final, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

from hub.model.addresses import is_email
from hub.model.vocabulary import Channel
from hub.provider_urls import ProviderUrl, parse_providers

T = TypeVar("T")

PROVIDER_FIELDS: Final = {
    "email_providers": Channel.EMAIL,
    "sms_providers": Channel.SMS,
    "mobile_providers": Channel.MOBILE_PUSH,
}


def setting(default: Any, description: str, accepts: str) -> Any:
    """A field: what the knob trades, and what its value may be (the end of the sentence of a refusal)."""
    return Field(default=default, description=description, json_schema_extra={"accepts": accepts})


def need(value: T, condition: object) -> T:
    """The value, if the condition holds. Raises ValueError."""
    if not condition:
        raise ValueError
    return value


def words(value: object) -> list[str]:
    """What a list of words holds, however it was given."""
    if isinstance(value, str):
        return value.replace(",", " ").split()
    return [str(part) for part in value] if isinstance(value, list | tuple) else [str(value)]


class ChannelSettings(BaseSettings):
    """The knobs of addressed channels."""

    email_providers: SecretStr | None = setting(
        None,
        "Mail servers in failover order; unset, no e-mail is sent.",
        "smtp://user:password@host:587?starttls=1 or smtps://…, several separated by spaces",
    )
    email_from: str | None = setting(
        None,
        "The sender of every e-mail: people judge by it, and mail servers check whether it is yours.",
        "an address, or a name with one: Shop <shop@example.com>",
    )
    sms_providers: SecretStr | None = setting(
        None,
        "SMS gateways in failover order; unset, no SMS is sent.",
        "twilio://SID:TOKEN@api.twilio.com?from=+15005550006 or apprise+SCHEME://…, several separated by spaces",
    )
    mobile_providers: SecretStr | None = setting(
        None,
        "Push to phones; unset, nothing is pushed to devices.",
        "fcm://PROJECT?credentials=FILE",
    )
    vapid_private_key: SecretStr | None = setting(
        None,
        "Signs web push; another key makes every browser's subscription useless. Unset, one is generated and kept.",
        "a P-256 private key: 43 characters of base64url, as web push libraries print it, or PEM",
    )
    vapid_subject: str | None = setting(
        None,
        "Whom push services ask when something is wrong; some refuse a subject that nobody can reach.",
        "mailto:ops@example.com or an https:// address",
    )
    push_allowed_hosts: Annotated[tuple[str, ...], NoDecode] = setting(
        (),
        "Push services beside the known ones; each is a host that this server will connect to.",
        "host names separated by spaces or commas, *.example.com for all below one; a loopback host with its port",
    )

    @field_validator("email_providers", "sms_providers", "mobile_providers")
    @classmethod
    def _providers(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None:
            parse_providers(PROVIDER_FIELDS[info.field_name or ""], value.get_secret_value())
        return value

    @field_validator("email_from")
    @classmethod
    def _email_from(cls, value: str | None) -> str | None:
        if value is None:
            return None
        name, address = parseaddr(value)
        clean = not re.search(r"[\x00-\x1f\x7f]", value) and (name or value.strip("<> ") == address)
        return need(value, clean and is_email(address))

    @field_validator("vapid_subject")
    @classmethod
    def _vapid_subject(cls, value: str | None) -> str | None:
        address = (value or "").removeprefix("mailto:")
        good = (
            value is None
            or (value.startswith("mailto:") and is_email(address))
            or (value.startswith("https://") and bool(urlsplit(value).hostname))
        )
        return need(value, good)

    @field_validator("vapid_private_key")
    @classmethod
    def _vapid_private_key(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value().strip() if value else ""
        good = re.fullmatch(r"[A-Za-z0-9_-]{43}=?", text) or text.startswith("-----BEGIN")
        return need(value, value is None or good)

    @field_validator("push_allowed_hosts", mode="before")
    @classmethod
    def _push_allowed_hosts(cls, value: object) -> object:
        return tuple(
            need(
                part.lower(),
                re.fullmatch(r"(\*\.)?[a-z0-9.-]+(:[0-9]{1,5})?|\[::1\]:[0-9]{1,5}", part.lower()),
            )
            for part in words(value)
        )

    def providers(self, channel: Channel) -> tuple[ProviderUrl, ...]:
        """The configured providers of a channel, in failover order."""
        name = next((name for name, served in PROVIDER_FIELDS.items() if served is channel), None)
        value: SecretStr | None = getattr(self, name) if name else None
        return parse_providers(channel, value.get_secret_value()) if value else ()

    @model_validator(mode="after")
    def _email_needs_a_sender(self) -> Self:
        if self.email_providers and self.email_from is None:
            raise ValueError(
                "CLARION_EMAIL_PROVIDERS is set, so CLARION_EMAIL_FROM must be set as well: every e-mail needs a sender."
            )
        return self

    @property
    def available_channels(self) -> frozenset[Channel]:
        """The addressed channels that can be used: those with a provider, and web push, which needs none."""
        return frozenset({Channel.WEB_PUSH, *(c for c in PROVIDER_FIELDS.values() if self.providers(c))})
