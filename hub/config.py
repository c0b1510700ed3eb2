"""Settings: read once from the environment and `.env` into a frozen object.

A value that cannot work stops the start with one sentence that names the variable, the value and what would
be accepted (`ConfigError`). Secrets may come from a file (`CLARION_…_FILE`); no form of printing shows them.
"""

import re
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo, available_timezones

from pydantic import SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from hub.config_channels import PROVIDER_FIELDS, ChannelSettings, need, setting, words
from hub.config_sources import PREFIX, SecretFiles, sentence, variable
from hub.errors import ConfigError
from hub.keyfiles import load_or_create_secret, new_api_key, new_token_secret, new_vapid_key
from hub.origins import OriginPolicy, PublicUrl, is_loopback_host, parse_origin_rule
from hub.ratelimit import RateLimit
from hub.urls import database_url_problem, redis_url_problem, sqlalchemy_url


class Settings(ChannelSettings):
    """Every knob of the product. Field `x_y` is the variable `CLARION_X_Y`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        ignored_types=(cached_property,),
    )

    host: str = setting(
        "127.0.0.1",
        "Where nodes listen: 127.0.0.1 keeps strangers out, 0.0.0.0 lets a network in.",
        "an address or host name, such as 127.0.0.1 or 0.0.0.0",
    )
    port: int = setting(
        8000,
        "The port of the nodes; those on one machine share it.",
        "a whole number from 1 to 65535",
    )
    public_url: str | None = setting(
        None,
        "The address that links carry; unset, it is made from host and port, which others may not reach.",
        "an http:// or https:// address, with a path if you like, without query or user name",
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = setting(
        (),
        "Proxies whose X-Forwarded-* headers are believed; one too many lets clients forge theirs.",
        "addresses or networks separated by spaces or commas, such as 10.0.0.0/8 127.0.0.1",
    )
    data_dir: Path = setting(
        Path("data"),
        "Embedded Valkey, SQLite and generated keys: one folder to keep, to back up and to protect.",
        "a folder that this user may write",
    )
    redis_url: SecretStr | None = setting(
        None,
        "A Redis or Valkey of your own, not the embedded one; its AOF policy decides what a 202 is worth.",
        "redis://, rediss:// or unix:// with an optional database number, such as redis://localhost:6379/0",
    )
    redis_prefix: str = setting(
        "clarion",
        "Goes before every key, so that deployments can share a Redis; changing it means starting empty.",
        "1 to 64 letters, digits, dots, dashes or underscores",
    )
    database_url: SecretStr | None = setting(
        None,
        "PostgreSQL instead of SQLite: needed for several machines, slower to set up.",
        "postgresql://user:password@host/database or sqlite:///path",
    )
    api_key: SecretStr | None = setting(
        None,
        "A first API key with all scopes; unset, one is generated into the data folder.",
        "at least 16 printable ASCII characters without spaces",
    )
    token_secret: SecretStr | None = setting(
        None,
        "Signs and verifies user tokens (HS256); several let you rotate: the first signs, all verify.",
        "secrets of at least 32 bytes each, separated by spaces",
    )
    token_jwks_url: str | None = setting(
        None,
        "Verifies tokens of your identity provider (RS256, ES256, EdDSA); its outage keeps new users out.",
        "an https:// address (http:// on a loopback host)",
    )
    token_issuer: str | None = setting(
        None,
        "The `iss` that tokens must carry; unset, it is not looked at.",
        "a text without spaces",
    )
    token_audience: str | None = setting(
        None,
        "The `aud` that tokens must carry; unset, it is not looked at.",
        "a text without spaces",
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = setting(
        (),
        "Sites whose pages may call /v1/me/* and the live routes: each is trusted with its users' tokens.",
        "origins separated by spaces or commas, such as https://app.example.com or https://*.example.com",
    )
    partitions: int = setting(
        8,
        "How far generators can be spread; fixed at the first start, since it decides each user's partition.",
        "a whole number from 1 to 1024",
    )
    queue_limit: int = setting(
        500_000,
        "Waiting events beyond which publishing gets 503: room for an outage against memory.",
        "a whole number from 1 to 1000000000",
    )
    retention_days: int = setting(
        90,
        "How long inbox and log are kept: history against disk.",
        "a whole number from 1 to 36500",
    )
    timezone: str = setting(
        "UTC",
        "The zone of users who have none: decides their quiet hours and local send times.",
        "an IANA time zone, such as Europe/Berlin",
    )
    log_format: Literal["text", "json"] | None = setting(
        None,
        "Text is for eyes, json for machines; unset, a terminal gets text and everything else json.",
        "text or json",
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info",
        "More says more and costs time and disk.",
        "debug, info, warning or error",
    )
    rate_limit: Annotated[RateLimit | None, NoDecode] = setting(
        RateLimit(600, 60),
        "Calls that one user may make on each node: room for busy pages against floods.",
        "a count per s, m, h or d, such as 600/m or 100/5m, or none",
    )

    metrics_port: int | None = setting(
        None,
        "Where a generator answers scrapes of its metrics; unset, nowhere. Nodes have /metrics.",
        "a whole number from 1 to 65535",
    )
    metrics_peers: Annotated[tuple[str, ...], NoDecode] = setting(
        (),
        "Other processes whose metrics a node shows with its own, when they cannot be scraped one by one.",
        "http:// addresses separated by spaces or commas",
    )
    process_name: str | None = setting(
        None,
        "The label `process` of all metrics of this process, for several that are scraped as one; unset, no label.",
        "1 to 64 letters, digits, dots, dashes or underscores",
    )
    direct_port: int | None = setting(
        None,
        "A port on 127.0.0.1 of this node alone: asks one of those that share CLARION_PORT; unset, there is none.",
        "a whole number from 1 to 65535",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - part of the signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, that over `…_FILE`, that over `.env`."""
        return init_settings, env_settings, SecretFiles(settings_cls), dotenv_settings

    # ------------------------------------------------------------ checks of single values

    @field_validator("host")
    @classmethod
    def _host(cls, value: str) -> str:
        return need(value, re.fullmatch(r"[A-Za-z0-9._:%-]{1,253}", value))

    @field_validator("port", "metrics_port", "direct_port")
    @classmethod
    def _port(cls, value: int | None) -> int | None:
        return need(value, value is None or 1 <= value <= 65_535)

    @field_validator("metrics_peers", mode="before")
    @classmethod
    def _metrics_peers(cls, value: object) -> object:
        return tuple(need(part, re.fullmatch(r"https?://[^\s/]+(/\S*)?", part)) for part in words(value))

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, value: str | None) -> str | None:
        return value and PublicUrl.parse(value).url

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _trusted_proxies(cls, value: object) -> object:
        return tuple(ip_network(part, strict=False) for part in words(value))

    @field_validator("data_dir")
    @classmethod
    def _data_dir(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value and (problem := redis_url_problem(value.get_secret_value())):
            raise ValueError(problem)
        return value

    @field_validator("redis_prefix", "process_name")
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        return need(value, value is None or re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value))

    @field_validator("database_url")
    @classmethod
    def _database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value and (problem := database_url_problem(value.get_secret_value())):
            raise ValueError(problem)
        return value

    @field_validator("api_key")
    @classmethod
    def _api_key(cls, value: SecretStr | None) -> SecretStr | None:
        return need(value, value is None or re.fullmatch(r"[!-~]{16,512}", value.get_secret_value()))

    @field_validator("token_secret")
    @classmethod
    def _token_secret(cls, value: SecretStr | None) -> SecretStr | None:
        words = value.get_secret_value().split() if value else ["x" * 32]
        for number, word in enumerate(words, 1):
            if len(word.encode()) < 32:
                raise ValueError(f"secret {number} of {len(words)} has {len(word.encode())} bytes")
        return need(value, words)

    @field_validator("token_jwks_url")
    @classmethod
    def _token_jwks_url(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "https://unset")
        good = parts.hostname and (
            parts.scheme == "https" or (parts.scheme == "http" and is_loopback_host(parts.hostname))
        )
        return need(value, good)

    @field_validator("token_issuer", "token_audience")
    @classmethod
    def _token_claims(cls, value: str | None) -> str | None:
        return need(value, value is None or re.fullmatch(r"\S{1,512}", value))

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _allowed_origins(cls, value: object) -> object:
        return tuple(parse_origin_rule(part) for part in words(value))

    @field_validator("partitions")
    @classmethod
    def _partitions(cls, value: int) -> int:
        return need(value, 1 <= value <= 1_024)

    @field_validator("queue_limit")
    @classmethod
    def _queue_limit(cls, value: int) -> int:
        return need(value, 1 <= value <= 1_000_000_000)

    @field_validator("retention_days")
    @classmethod
    def _retention_days(cls, value: int) -> int:
        return need(value, 1 <= value <= 36_500)

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        return need(value, value in available_timezones())

    @field_validator("log_format", "log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("rate_limit", mode="before")
    @classmethod
    def _rate_limit(cls, value: object) -> object:
        return RateLimit.parse(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _jwks_needs_claims(self) -> Self:
        if self.token_jwks_url:
            for name in ("token_issuer", "token_audience"):
                if getattr(self, name) is None:
                    raise ValueError(
                        f"CLARION_TOKEN_JWKS_URL is set, so {variable(name)} must be set as well: "
                        "keys of an identity provider sign tokens for other services too."
                    )
        return self

    # ------------------------------------------------------------ what follows from them

    @cached_property
    def public(self) -> PublicUrl:
        """The public address; unset, a wildcard host becomes the loopback one, since links need a name."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return PublicUrl.parse(self.public_url or f"http://{bracketed}:{self.port}")

    @cached_property
    def origins(self) -> OriginPolicy:
        """Which pages may call the routes of users."""
        return OriginPolicy(self.public, self.allowed_origins, any_loopback=is_loopback_host(self.host))

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of users who have none."""
        return ZoneInfo(self.timezone)

    @property
    def is_embedded_redis(self) -> bool:
        """Whether `clarion up` starts a Valkey itself."""
        return self.redis_url is None

    @property
    def sqlalchemy_url(self) -> SecretStr:
        """The database for SQLAlchemy's asyncio engines: `postgresql+asyncpg://…` or `sqlite+aiosqlite:///…`."""
        given = self.database_url.get_secret_value() if self.database_url else None
        return SecretStr(sqlalchemy_url(given or f"sqlite:///{self.data_dir / 'clarion.db'}"))

    @property
    def token_secrets(self) -> tuple[bytes, ...]:
        """The HS256 secrets; the first signs, all verify. Empty only before `with_generated_secrets`."""
        if self.token_secret is None:
            return ()
        return tuple(word.encode() for word in self.token_secret.get_secret_value().split())

    def with_generated_secrets(self, *, create: bool = True) -> "Settings":
        """Fill an unset API key, token secret and push key from the data folder; the first process makes them (0600).

        Without `create` those that the folder lacks stay unset.
        """
        found: dict[str, SecretStr] = {}
        for name, file, make in (
            ("api_key", "api-key", new_api_key),
            ("token_secret", "token-secret", new_token_secret),
            ("vapid_private_key", "vapid-private-key", new_vapid_key),
        ):
            path = self.data_dir / file
            if getattr(self, name) is None and (create or path.exists()):
                found[name] = SecretStr(load_or_create_secret(path, make))
        return self.model_copy(update=found) if found else self

    def secrets(self) -> tuple[str, ...]:
        """Every secret text that logs must not show, passwords inside URLs included."""
        texts = [secret.decode() for secret in self.token_secrets]
        if self.api_key:
            texts.append(self.api_key.get_secret_value())
        addresses = [
            urlsplit(value.get_secret_value()) for value in (self.redis_url, self.database_url) if value
        ]
        passwords = [address.password for address in addresses if address.password]
        if self.vapid_private_key:
            texts.append(self.vapid_private_key.get_secret_value())
        for channel in PROVIDER_FIELDS.values():
            for url in self.providers(channel):
                passwords += [url.password] if url.password else []
                texts += [url.inner] if url.inner else []
        return tuple({*texts, *passwords, *map(unquote, passwords)})


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; arguments that are not None win over the environment. Raises ConfigError."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise ConfigError(sentence(error, Settings.model_fields, given)) from None
