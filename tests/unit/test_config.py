"""Settings: defaults, sentences, files, secrets that never show."""

import json
import logging
import pickle
import stat
from concurrent.futures import ProcessPoolExecutor
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hub.config import Settings, load_settings
from hub.config_sources import is_secret, unknown_variables, variable
from hub.errors import ConfigError
from hub.keyfiles import load_or_create_secret, new_api_key
from hub.origins import OriginPolicy, PublicUrl
from hub.ratelimit import RateLimit

SECRET = "hunter2-" + "x" * 40


@pytest.fixture(autouse=True)
def _empty_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("CLARION_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def refusal(**overrides: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(**overrides)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


@pytest.mark.req("R33")
def test_nothing_needs_to_be_set(tmp_path: Path) -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.partitions) == ("127.0.0.1", 8000, 8)
    assert settings.data_dir == tmp_path / "data"
    assert settings.is_embedded_redis
    assert settings.sqlalchemy_url.get_secret_value() == f"sqlite+aiosqlite:///{tmp_path}/data/clarion.db"
    assert settings.public.url == "http://127.0.0.1:8000"
    assert settings.rate_limit == RateLimit(600, 60)
    assert settings.queue_limit == 500_000
    assert settings.retention_days == 90
    assert settings.token_secrets == ()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load_settings().port = 1  # type: ignore[misc]


def test_order_of_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("CLARION_PORT=9001\nCLARION_TIMEZONE=Asia/Seoul\nCLARION_QUEUE_LIMIT=\n")
    assert load_settings().port == 9001
    monkeypatch.setenv("CLARION_PORT", "9002")
    assert load_settings().port == 9002
    assert load_settings(port=9003).port == 9003
    assert load_settings(port=None).timezone == "Asia/Seoul"
    assert load_settings().queue_limit == 500_000  # empty means unset


BAD = {
    "HOST": ["a b", "http://x"],
    "PORT": ["tcp://10.0.0.1:8000", "0", "65536", "8.5", "-1", "٣"],
    "PUBLIC_URL": [
        "example.com",
        "ftp://x",
        "https://x/?a=b",
        "https://u:p@x/",
        "https://x/#f",
        "https:///p",
        "https://x:99999",
    ],
    "TRUSTED_PROXIES": ["*", "10.0.0.0/33", "proxy.internal"],
    "REDIS_PREFIX": ["a b", "{x}", "x" * 65, "a:b"],
    "PROCESS_NAME": ["a b", "node/1", "x" * 65],
    "DIRECT_PORT": ["0", "65536", "any"],
    "TOKEN_JWKS_URL": ["http://id.example.com/jwks", "file:///etc/passwd", "https://"],
    "ALLOWED_ORIGINS": [
        "*",
        "https://*.com",
        "example.com",
        "https://a.example/path",
        "null",
        "https://*",
        "https://a.*.com",
    ],
    "PARTITIONS": ["0", "1025", "many"],
    "QUEUE_LIMIT": ["0", "-5", "1e9"],
    "RETENTION_DAYS": ["0", "forever"],
    "TIMEZONE": ["Mars/Olympus", "../../etc/passwd", "utc "],
    "LOG_FORMAT": ["xml"],
    "LOG_LEVEL": ["loud"],
    "RATE_LIMIT": ["600", "600/w", "0/m", "-1/m", "600/0m"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_a_bad_value_is_refused_with_a_sentence(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"CLARION_{name}", value)
    sentence = refusal()
    assert sentence.startswith(f"CLARION_{name} is {value!r}, but it must be ")


BAD_SECRETS = {
    "REDIS_URL": [
        f"http://:{SECRET}@h",
        f"redis://:{SECRET}@",
        f"redis://:{SECRET}@h/zero",
        f"unix:{SECRET}",
        f"redis://:{SECRET}@h:99999",
    ],
    "DATABASE_URL": [
        f"mysql://u:{SECRET}@h/db",
        f"postgresql://u:{SECRET}@h",
        "sqlite://",
        f"postgresql://u:{SECRET}@h:x/db",
    ],
    "API_KEY": ["short", f"{SECRET} with space", "ü" * 20],
    "TOKEN_SECRET": ["x" * 31, f"{SECRET} short", "ü" * 15],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD_SECRETS.items() for value in values]
)
def test_a_bad_secret_is_refused_without_showing_it(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"CLARION_{name}", value)
    sentence = refusal()
    assert sentence.startswith(f"CLARION_{name} cannot be used (its value is not shown")
    assert SECRET not in sentence
    assert value == "sqlite://" or value not in sentence


def test_a_bad_argument_names_the_variable() -> None:
    assert refusal(port=70_000) == "CLARION_PORT is '70000', but it must be a whole number from 1 to 65535."


def test_keys_of_an_identity_provider_need_issuer_and_audience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLARION_TOKEN_JWKS_URL", "https://id.example.com/jwks.json")
    assert "CLARION_TOKEN_ISSUER must be set" in refusal()
    monkeypatch.setenv("CLARION_TOKEN_ISSUER", "https://id.example.com")
    assert "CLARION_TOKEN_AUDIENCE must be set" in refusal()
    monkeypatch.setenv("CLARION_TOKEN_AUDIENCE", "clarion")
    assert load_settings().token_audience == "clarion"


def secret_settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("CLARION_API_KEY", f"key-{SECRET}")
    monkeypatch.setenv("CLARION_TOKEN_SECRET", f"one-{SECRET} two-{SECRET}")
    monkeypatch.setenv("CLARION_REDIS_URL", f"redis://:{SECRET}@localhost/0")
    monkeypatch.setenv("CLARION_DATABASE_URL", f"postgresql://clarion:{SECRET}@localhost/clarion")
    monkeypatch.setenv("CLARION_VAPID_PRIVATE_KEY", "A" * 43)
    return load_settings()


def test_secrets_cannot_be_printed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    settings = secret_settings(monkeypatch)
    logging.getLogger("test").warning("settings %s %r", settings, settings)
    printed = [
        str(settings),
        repr(settings),
        f"{settings}",
        str(settings.model_dump()),
        settings.model_dump_json(),
        json.dumps(settings.model_dump(mode="json")),
        str(dict(settings)),
        repr(settings.sqlalchemy_url),
        caplog.text,
    ]
    assert caplog.text
    for text in printed:
        assert "hunter2" not in text
    assert settings.token_secrets == (f"one-{SECRET}".encode(), f"two-{SECRET}".encode())
    assert settings.sqlalchemy_url.get_secret_value().startswith("postgresql+asyncpg://clarion:hunter2")
    assert {f"key-{SECRET}", f"one-{SECRET}", f"two-{SECRET}", SECRET} <= set(settings.secrets())


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if is_secret(field)])
def test_every_secret_may_come_from_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = {
        "redis_url": "redis://localhost/1",
        "database_url": "postgresql://localhost/db",
        "email_providers": "smtp://localhost",
        "sms_providers": "twilio://sid:token@api.twilio.com?from=+15005550006",
        "mobile_providers": f"fcm://project?credentials={__file__}",
        "vapid_private_key": "A" * 43,
    }.get(name, SECRET)
    monkeypatch.setenv("CLARION_EMAIL_FROM", "shop@example.com")
    (tmp_path / "secret").write_text(f"{value}\n")
    monkeypatch.setenv(f"{variable(name)}_FILE", str(tmp_path / "secret"))
    assert getattr(load_settings(), name).get_secret_value() == value
    monkeypatch.setenv(variable(name), value)
    assert "both set" in refusal()
    monkeypatch.delenv(variable(name))
    (tmp_path / "secret").write_text("\n")
    assert "empty" in refusal()
    (tmp_path / "secret").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in refusal()
    (tmp_path / "secret").unlink()
    assert "No such file" in refusal()


def test_secrets_include_all_that_look_like_one() -> None:
    named = {
        name
        for name in Settings.model_fields
        if any(word in name for word in ("secret", "api_key", "password"))
    }
    secret = {name for name, field in Settings.model_fields.items() if is_secret(field)}
    assert named <= secret
    assert {"redis_url", "database_url"} <= secret  # they may carry passwords


def test_every_knob_says_what_it_trades() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        assert field.json_schema_extra["accepts"], name


def test_generated_secrets_stay(tmp_path: Path) -> None:
    first = load_settings().with_generated_secrets()
    again = load_settings().with_generated_secrets()
    assert first.api_key == again.api_key
    assert first.token_secret == again.token_secret
    assert len(first.token_secrets[0]) >= 32
    assert first.vapid_private_key == again.vapid_private_key
    for name in ("api-key", "token-secret", "vapid-private-key"):
        path = tmp_path / "data" / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
    load_settings().with_generated_secrets()
    assert stat.S_IMODE((tmp_path / "data" / "api-key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "api-key",
        "secrets.lock",
        "token-secret",
        "vapid-private-key",
    ]


def test_given_secrets_are_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = secret_settings(monkeypatch)
    assert settings.with_generated_secrets() == settings
    assert not (tmp_path / "data").exists()


def _create(path: Path) -> str:
    return load_or_create_secret(path, new_api_key)


def test_racing_processes_agree_on_a_generated_secret(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4) as pool:
        texts = set(pool.map(_create, [tmp_path / "data" / "api-key"] * 16))
    assert len(texts) == 1


def test_an_unusable_data_folder_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = load_settings(data_dir=tmp_path / "file" / "below")
    with pytest.raises(ConfigError, match="CLARION_DATA_DIR"):
        settings.with_generated_secrets()


def test_an_empty_secret_file_is_not_a_secret(tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text("")
    with pytest.raises(ConfigError, match="empty"):
        load_or_create_secret(tmp_path / "api-key", new_api_key)


def test_misspelled_variables_are_noticed() -> None:
    hints = unknown_variables(
        Settings.model_fields,
        {"CLARION_REDIS_ULR": "x", "CLARION_SERVICE_HOST": "10.0.0.1", "CLARION_API_KEY_FILE": "y"},
    )
    assert hints == ["CLARION_REDIS_ULR is not a setting; did you mean CLARION_REDIS_URL?"]


def test_rate_limits() -> None:
    assert load_settings(rate_limit="100/5m").rate_limit == RateLimit(100, 300)
    assert load_settings(rate_limit="10/s").rate_limit == RateLimit(10, 1)
    assert load_settings(rate_limit="none").rate_limit is None


def test_trusted_proxies() -> None:
    settings = load_settings(trusted_proxies="10.0.0.0/8, 127.0.0.1 ::1")
    assert settings.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("127.0.0.1"), ip_network("::1"))


@pytest.mark.parametrize(
    ("given_url", "wanted"),
    [
        ("postgresql://u:p@h:5433/db?sslmode=require", "postgresql+asyncpg://u:p@h:5433/db?ssl=require"),
        ("postgres:///db?host=/run/pg", "postgresql+asyncpg:///db?host=%2Frun%2Fpg"),
        ("sqlite:////var/lib/c.db", "sqlite+aiosqlite:////var/lib/c.db"),
        ("sqlite:///c.db", "sqlite+aiosqlite:///c.db"),
    ],
)
def test_database_addresses(given_url: str, wanted: str) -> None:
    assert load_settings(database_url=given_url).sqlalchemy_url.get_secret_value() == wanted


def test_public_url_with_a_path() -> None:
    public = load_settings(public_url="https://Example.com/Notify/").public
    assert public == PublicUrl("https://example.com/Notify", "https://example.com", "/Notify", True)


@pytest.mark.parametrize(
    ("host", "wanted"),
    [("0.0.0.0", "http://127.0.0.1:8000"), ("::1", "http://[::1]:8000"), ("::", "http://[::1]:8000")],
)
def test_public_url_of_wildcard_hosts(host: str, wanted: str) -> None:
    assert load_settings(host=host).public.url == wanted


class TestOrigins:
    open = OriginPolicy(
        PublicUrl.parse("https://hub.example.com"),
        ("https://app.example.org", "https://*.shop.example:8443"),
        False,
    )

    @pytest.mark.parametrize(
        "origin",
        [
            "https://hub.example.com",
            "HTTPS://HUB.example.com:443",
            "https://app.example.org",
            "https://a.shop.example:8443",
            "https://a.b.shop.example:8443",
        ],
    )
    def test_allowed(self, origin: str) -> None:
        assert self.open.allows(origin)

    @pytest.mark.parametrize(
        "origin",
        [
            "null",
            "",
            "http://hub.example.com",
            "https://hub.example.com:444",
            "https://evilshop.example:8443",
            "https://shop.example:8443",
            "https://a.shop.example",
            "https://app.example.org.evil.com",
            "https://app.example.org@evil.com",
            "https://*.shop.example:8443",
            "http://localhost:3000",
            "https://app.example.org/",
            "https://hub.example.com:99999",
        ],
    )
    def test_refused(self, origin: str) -> None:
        assert not self.open.allows(origin)

    def test_own_origin_by_host(self) -> None:
        assert self.open.allows("http://10.1.2.3:8000", "10.1.2.3:8000")
        assert not self.open.allows("http://10.1.2.3:8000", "10.1.2.4:8000")
        assert not self.open.allows("http://10.1.2.3:8000", "bad host")

    def test_loopback_host_allows_loopback_origins(self) -> None:
        local = load_settings().origins
        for origin in (
            "http://localhost:3000",
            "http://127.0.0.1:5173",
            "http://[::1]:1",
            "http://app.localhost",
        ):
            assert local.allows(origin), origin
        assert not local.allows("https://example.com")
        assert not load_settings(host="0.0.0.0").origins.allows("http://localhost:3000")

    @given(st.text(max_size=60))
    def test_never_raises(self, origin: str) -> None:
        self.open.allows(origin, origin)


def test_a_pickle_is_the_only_thing_that_carries_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = secret_settings(monkeypatch)
    assert pickle.loads(pickle.dumps(settings)).api_key == settings.api_key
