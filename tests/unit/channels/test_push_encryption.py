"""The examples of RFC 8188 and RFC 8291, and that what we encrypt is what a browser can read."""

import http_ece
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hub.model.outgoing import Target
from hub.push_keys import application_server_key, decode_base64url, is_p256_point, read_private_key
from tests.support.push_service import VAPID_KEY, Browser, b64, unb64
from workers.channels.push_message import BODY_LIMIT_BYTES, PLAINTEXT_LIMIT_BYTES
from workers.channels.web_push import encrypted

pytestmark = pytest.mark.req("R7")

# RFC 8291 §5 and appendix A
PLAINTEXT = b"When I grow up, I want to be a watermelon"
SENDER = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
BROWSER = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"
BROWSER_POINT = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
SECRET = "BTBZMqHH6r4Tts7J_aSIgg"
SALT = "DGv6ra1nlYgDCS1FRnbzlw"
MESSAGE = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl"
    "7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)


def test_the_example_of_rfc_8291_is_written_byte_for_byte() -> None:
    body = http_ece.encrypt(
        PLAINTEXT,
        salt=unb64(SALT),
        private_key=read_private_key(SENDER),
        dh=unb64(BROWSER_POINT),
        auth_secret=unb64(SECRET),
        version="aes128gcm",
    )
    assert b64(body) == MESSAGE


def test_the_example_of_rfc_8291_is_read_by_the_browser_of_the_tests() -> None:
    browser = Browser("https://push.example.net/push/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV")
    browser.key, browser.auth = read_private_key(BROWSER), unb64(SECRET)
    assert browser.subscription["keys"]["p256dh"] == BROWSER_POINT
    assert browser.decrypt(unb64(MESSAGE)) == PLAINTEXT


@pytest.mark.parametrize(
    ("key", "message"),
    [
        # RFC 8188 §3.1: one record; §3.2: a key id and records of 25 bytes
        ("yqdlZ-tYemfogSmv7Ws5PQ", "I1BsxtFttlv3u_Oo94xnmwAAEAAA-NAVub2qFgBEuQKRapoZu-IxkIva3MEB1PD-ly8Thjg"),
        (
            "BO3ZVPxUlnLORbVGMpbT1Q",
            "uNCkWiNYzKTnBN9ji3-qWAAAABkCYTHOG8chz_gnvgOqdGYovxyjuqRyJFjEDyoF1Fvkj6hQPdPHI51OEUKEpgz3SsLWIqS_uA",
        ),
    ],
)
def test_the_examples_of_rfc_8188_are_read(key: str, message: str) -> None:
    assert http_ece.decrypt(unb64(message), key=unb64(key), version="aes128gcm") == b"I am the walrus"


@pytest.mark.parametrize("size", [1, 40, PLAINTEXT_LIMIT_BYTES])
def test_what_we_encrypt_the_browser_reads_and_the_service_takes(size: int) -> None:
    browser = Browser("https://fcm.googleapis.com/x")
    target = Target("psb_1", browser.endpoint, browser.subscription["keys"])
    bodies = [encrypted(b"x" * size, target) for _ in range(2)]
    assert [browser.decrypt(body) for body in bodies] == [b"x" * size] * 2
    assert bodies[0] != bodies[1], "a fresh key and salt for each message"
    assert len(bodies[0]) == size + BODY_LIMIT_BYTES - PLAINTEXT_LIMIT_BYTES


def test_the_key_is_read_in_each_of_its_forms() -> None:
    from cryptography.hazmat.primitives import serialization

    key = read_private_key(VAPID_KEY)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    for text in (VAPID_KEY, VAPID_KEY + "=", f" {VAPID_KEY}\n", pem):
        assert application_server_key(read_private_key(text)) == BROWSER_POINT
    assert is_p256_point(decode_base64url(BROWSER_POINT))


def test_keys_that_are_none_are_refused_without_showing_them() -> None:
    from cryptography.hazmat.primitives import serialization

    from hub.errors import ConfigError

    other = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for text in (
        "A" * 43,
        "_" * 43,
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        other.decode(),
    ):
        with pytest.raises(ConfigError, match="CLARION_VAPID_PRIVATE_KEY cannot be used") as refused:
            read_private_key(text)
        assert text not in str(refused.value)
    for point in (
        b"",
        b"\x04" + b"\0" * 64,
        b"\x04" + b"\1" * 64,
        unb64(BROWSER_POINT)[:-1],
        b"\x02" + b"\1" * 32,
    ):
        assert not is_p256_point(point)
