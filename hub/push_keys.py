"""The key pair that signs web push (VAPID, RFC 8292): read from the settings, and what browsers get of it.

A key that cannot be read stops the start with a sentence; no sentence shows it.
"""

import base64
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hub.errors import ConfigError

_ACCEPTS: Final = "it must be a P-256 private key: 43 characters of base64url, or PEM without a password"


def read_private_key(text: str) -> ec.EllipticCurvePrivateKey:
    """The key: its 32 bytes in base64url, as web push libraries print it, or PEM. Raises ConfigError."""
    try:
        if text.lstrip().startswith("-----BEGIN"):
            key = serialization.load_pem_private_key(text.strip().encode(), password=None)
        else:
            number = int.from_bytes(decode_base64url(text.strip()), "big")
            key = ec.derive_private_key(number, ec.SECP256R1())
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError(f"CLARION_VAPID_PRIVATE_KEY cannot be used: {_ACCEPTS}.")
    return key


def application_server_key(key: ec.EllipticCurvePrivateKey) -> str:
    """The public half as `pushManager.subscribe` takes it: the uncompressed point of 65 bytes in base64url."""
    point = key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    return encode_base64url(point)


def is_p256_point(point: bytes) -> bool:
    """Whether bytes are an uncompressed point on the curve: a browser's public key (RFC 8291 §3.1)."""
    if len(point) != 65:
        return False
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        return False
    return True


def decode_base64url(text: str) -> bytes:
    """Bytes from base64url, with padding or without. Raises ValueError for any other character."""
    bare = text.rstrip("=")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)


def encode_base64url(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
