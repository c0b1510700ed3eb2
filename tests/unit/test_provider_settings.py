"""Providers in settings: taken apart at the start, and a mistake in typing named there, never a secret."""

from pathlib import Path

import pytest

from hub.config import load_settings
from hub.errors import ConfigError
from hub.model.vocabulary import Channel
from hub.provider_urls import parse_provider, parse_providers

pytestmark = [pytest.mark.req("R7"), pytest.mark.req("R35")]

EMAIL, SMS, MOBILE = Channel.EMAIL, Channel.SMS, Channel.MOBILE_PUSH


@pytest.fixture(autouse=True)
def _nothing_else_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_mail_server() -> None:
    url = parse_provider(EMAIL, "smtp://me%40example.com:p%2Fw@mail.example.com?starttls=1&connections=8")
    assert (url.host, url.port, url.user, url.password) == ("mail.example.com", 587, "me@example.com", "p/w")
    assert url.name == "smtp://mail.example.com"
    assert url.number("connections", 4) == 8
    assert url.is_on("starttls", default=False)
    assert "p/w" not in repr(url)
    assert "me@example.com" not in repr(url)


def test_names_tell_servers_apart() -> None:
    urls = parse_providers(EMAIL, "smtp://127.0.0.1:2525 smtp://127.0.0.1:2526 smtps://127.0.0.1")
    assert [url.name for url in urls] == [
        "smtp://127.0.0.1:2525",
        "smtp://127.0.0.1:2526",
        "smtps://127.0.0.1",
    ]


def test_an_sms_gateway() -> None:
    url = parse_provider(SMS, "twilio://AC1:secret@api.twilio.com?from=+15005550006")
    assert (url.name, url.user, url.options["from"]) == ("twilio://api.twilio.com", "AC1", "+15005550006")
    local = parse_provider(SMS, "twilio+http://AC1:secret@127.0.0.1:8080?from=Shop")
    assert (local.port, local.options["from"]) == (8080, "Shop")
    other = parse_provider(SMS, "apprise+sns://AKIA/SECRET/us-east-1")
    assert (other.name, other.inner) == ("apprise+sns", "sns://AKIA/SECRET/us-east-1")
    assert "SECRET" not in repr(other)


def test_a_push_project_keeps_its_case() -> None:
    url = parse_provider(MOBILE, f"fcm://My-Project?credentials={__file__}")
    assert url.host == "My-Project"


@pytest.mark.parametrize(
    ("channel", "text", "said"),
    [
        (EMAIL, "smpt://mail.example.com", "did you mean smtp://"),
        (EMAIL, "mail.example.com", "the scheme is missing"),
        (EMAIL, "smtp://", "needs a host"),
        (EMAIL, "smtp://mail:port", "port"),
        (EMAIL, "smtp://mail?startls=1", "did you mean starttls?"),
        (EMAIL, "smtp://mail?starttls=yes", "starttls must be 0 or 1"),
        (EMAIL, "smtp://mail?connections=0", "connections must be"),
        (EMAIL, "smtp://mail/path", "no path"),
        (EMAIL, "smtp://a smtp://b smtp://a", "smtp://a is listed twice"),
        (EMAIL, "smtp://a smtp://b?x=1", "provider 2 of 2"),
        (SMS, "twilio://api.twilio.com?from=+15005550006", "needs password"),
        (SMS, "twilio://AC1:secret@api.twilio.com", "needs from"),
        (SMS, "twilio://AC1:secret@api.twilio.com?from=nobody%20at%20all", "from must be"),
        (SMS, "twilio+http://AC1:secret@api.twilio.com?from=Shop", "loopback"),
        (SMS, "twillio://AC1:secret@api.twilio.com", "did you mean twilio://"),
        (SMS, "apprise+", "the scheme is missing"),
        (SMS, "apprise+sns://", "an address that Apprise knows"),
        (MOBILE, "fcm://project", "needs credentials"),
        (MOBILE, "fcm://project?credentials=/nowhere", "credentials must be a service account's JSON file"),
        (MOBILE, f"fcm://project?credentials={__file__}&endpoint=http://example.com", "endpoint must be"),
    ],
)
def test_a_mistake_is_named(channel: Channel, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_providers(channel, text)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_wrong_provider_stops_the_start() -> None:
    with pytest.raises(ConfigError, match=r"CLARION_EMAIL_PROVIDERS.*did you mean smtp://"):
        load_settings(email_providers="smpt://user:hunter2@mail", email_from="a@example.com")
    with pytest.raises(ConfigError) as caught:
        load_settings(email_providers="smtp://user:hunter2@mail?x=1", email_from="a@example.com")
    assert "hunter2" not in str(caught.value)


def test_mail_needs_a_sender() -> None:
    with pytest.raises(ConfigError, match="CLARION_EMAIL_FROM must be set"):
        load_settings(email_providers="smtp://mail")
    assert load_settings(email_from="Shop <shop@example.com>").email_from == "Shop <shop@example.com>"
    for wrong in ("nobody", "a@example.com\r\nBcc: b@example.com", "Shop shop@example.com", ""):
        if wrong:
            with pytest.raises(ConfigError, match="CLARION_EMAIL_FROM"):
                load_settings(email_from=wrong)


def test_what_can_be_used_follows_from_providers() -> None:
    assert load_settings().available_channels == {Channel.WEB_PUSH}
    settings = load_settings(email_providers="smtp://mail", email_from="shop@example.com")
    assert settings.available_channels == {Channel.WEB_PUSH, EMAIL}
    assert [url.host for url in settings.providers(EMAIL)] == ["mail"]
    assert settings.providers(Channel.WEB_PUSH) == ()


def test_passwords_of_providers_are_secrets() -> None:
    settings = load_settings(
        email_providers="smtp://user:hunter2@mail",
        email_from="shop@example.com",
        sms_providers="apprise+sns://AKIA/hunter3/us",
    )
    assert {"hunter2", "sns://AKIA/hunter3/us"} <= set(settings.secrets())
    assert "hunter" not in repr(settings)


@pytest.mark.parametrize("subject", ["ops@example.com", "http://example.com", "mailto:", "https://"])
def test_a_push_subject_is_an_address(subject: str) -> None:
    with pytest.raises(ConfigError, match="CLARION_VAPID_SUBJECT"):
        load_settings(vapid_subject=subject)


def test_push_hosts() -> None:
    settings = load_settings(push_allowed_hosts="*.Push.example.com, 127.0.0.1:9000 [::1]:9000")
    assert settings.push_allowed_hosts == ("*.push.example.com", "127.0.0.1:9000", "[::1]:9000")
    with pytest.raises(ConfigError, match="CLARION_PUSH_ALLOWED_HOSTS"):
        load_settings(push_allowed_hosts="https://push.example.com")
