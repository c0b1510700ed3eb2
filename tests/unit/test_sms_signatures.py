"""Who may call back: signatures over the public address and every field, and the addresses of providers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import Refused
from hub.model.vocabulary import Channel, is_id
from hub.provider_urls import parse_providers
from hub.sms_receipts import callback_id, callback_url, fields_of, is_signed, sign

pytestmark = pytest.mark.req("I16")

TOKEN = "12345"
ADDRESS = "https://mycompany.com/myapp.php?foo=1&bar=2"
FIELDS = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Caller", "+14158675309"),
    ("Digits", "1234"),
    ("From", "+14158675309"),
    ("To", "+18005551212"),
]


def test_the_published_example() -> None:
    """Twilio, "Security": the example of validating a request."""
    assert sign(TOKEN, ADDRESS, FIELDS) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="
    assert is_signed(TOKEN, ADDRESS, FIELDS[::-1], "RSOYDt4T1cUTdK1PDd93/VVr8B8=")


@pytest.mark.parametrize(
    ("token", "address", "fields", "signature"),
    [
        ("12346", ADDRESS, FIELDS, None),
        ("", ADDRESS, FIELDS, None),
        (TOKEN, ADDRESS + "&x=1", FIELDS, None),
        (TOKEN, ADDRESS.replace("https", "http"), FIELDS, None),
        (TOKEN, ADDRESS.replace(".com", ".org"), FIELDS, None),
        (TOKEN, ADDRESS, FIELDS[1:], None),
        (TOKEN, ADDRESS, [*FIELDS, ("x", "y")], None),
        (TOKEN, ADDRESS, FIELDS, ""),
        (TOKEN, ADDRESS, FIELDS, "RSOYDt4T1cUTdK1PDd93/VVr8B8"),
        (TOKEN, ADDRESS, FIELDS, "é\ud800"),
    ],
)
def test_anything_else_is_forged(
    token: str, address: str, fields: list[tuple[str, str]], signature: str | None
) -> None:
    given_signature = sign(TOKEN, ADDRESS, FIELDS) if signature is None else signature
    assert not is_signed(token, address, fields, given_signature)


def test_nobody_signs_with_an_empty_token() -> None:
    assert not is_signed("", ADDRESS, FIELDS, sign("", ADDRESS, FIELDS))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("https://hub.example/x", "https://hub.example:443/x"),
        ("https://hub.example:443/x?a=1", "https://hub.example/x?a=1"),
        ("http://hub.example/x", "http://hub.example:80/x"),
        ("https://hub.example:8443/x", "https://hub.example:8443/x"),
        ("http://[::1]:80/x", "http://[::1]/x"),
    ],
)
def test_a_default_port_may_be_named_or_not(ours: str, theirs: str) -> None:
    assert is_signed(TOKEN, ours, FIELDS, sign(TOKEN, theirs, FIELDS))
    assert not is_signed(TOKEN, ours, FIELDS, sign(TOKEN, theirs.replace("/x", "/y"), FIELDS))


@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=9), st.text(max_size=40))
def test_anything_is_judged_without_an_error(fields: list[tuple[str, str]], signature: str) -> None:
    sound = [(a.encode("utf-8", "ignore").decode(), b.encode("utf-8", "ignore").decode()) for a, b in fields]
    assert not is_signed(TOKEN, ADDRESS, sound, signature)
    assert is_signed(TOKEN, ADDRESS, sound, sign(TOKEN, ADDRESS, sound))


@given(st.binary(max_size=200))
def test_any_body_is_fields_or_refused(body: bytes) -> None:
    try:
        fields = fields_of(body)
    except Refused as refused:
        status = refused.status
        assert status == 400
    else:
        assert not any("\0" in name + value for name, value in fields)


def test_bodies() -> None:
    assert fields_of(b"Body=&To=%2B82&x=a+b%0D%0A") == [("Body", ""), ("To", "+82"), ("x", "a b\r\n")]
    for bad in (b"Body=%00", b"Body=%ff", b"\xc3\xa9=1", b"a=1&" * 300):
        with pytest.raises(Refused):
            fields_of(bad)


def test_each_provider_has_an_address_of_its_own() -> None:
    text = (
        "twilio://AC1:s3cret@api.twilio.com?from=+15005550006 twilio://AC1:s3cret@sms.example:8443?from=123"
        " twilio+http://AC1:s3cret@127.0.0.1:8080?from=Shop twilio+http://AC1:s3cret@[::1]:8080?from=Shop"
    )
    providers = parse_providers(Channel.SMS, text)
    names = [callback_id(one) for one in providers]
    assert names == [
        "twilio-api.twilio.com",
        "twilio-sms.example:8443",
        "twilio.http-127.0.0.1:8080",
        "twilio.http-::1:8080",
    ]
    assert all(is_id(name) for name in names)
    assert callback_url(providers[0], "https://x.example/hub") == (
        "https://x.example/hub/v1/callbacks/sms/twilio-api.twilio.com"
    )
