"""Reports of mail systems as they come back by e-mail: delivery status notifications (RFC 3464) and complaints (RFC 5965).

Pure, and bounded whatever comes. A report proves nothing by itself, since anybody can write one: it counts for the
delivery of ours that it gives back, and the address is only what it claims.
"""

import re
from collections.abc import Iterator
from email import message_from_bytes, message_from_string
from email.message import Message
from typing import Final, Literal

from msgspec import Struct

from hub.model.mail_status import means_no_mailbox, status_of

Kind = Literal["hard", "soft", "complaint"]

READ_LIMIT_BYTES: Final = 256 * 1024  # what stands behind is the rest of the message that came back
BLOCK_LIMIT: Final = 5_000
RECIPIENT_LIMIT: Final = 100
DETAIL_LIMIT: Final = 300
_DELIVERY: Final = re.compile(r"dlv_[0-9a-z_]{1,120}")
_CODE: Final = re.compile(r"smtp;\s*(\d{3})[ -]?(.*)", re.IGNORECASE | re.DOTALL)
_COMPLAINTS: Final = frozenset({"abuse", "fraud", "virus"})


class Report(Struct, frozen=True):
    """What a report says of one recipient. `addresses`: as given first and in the end; `delivery_id`: ours, if it is named."""

    kind: Kind
    addresses: tuple[str, ...]
    detail: str
    delivery_id: str | None


def read_reports(raw: bytes) -> list[Report]:
    """What a report says. Empty for one that says nothing of interest (delivered). Raises ValueError for what is none."""
    shown = raw[:READ_LIMIT_BYTES]
    # Each of the blocks that empty lines part becomes an object of its own in a parser.
    if shown.count(b"\n\n") + shown.count(b"\n\r\n") > BLOCK_LIMIT:
        raise ValueError("It has too many empty lines for a report.")
    try:
        message = message_from_bytes(shown)
        parts = list(message.walk())
    except (RecursionError, LookupError, ValueError):
        raise ValueError("It cannot be read as an e-mail.") from None
    delivery_id = next((found for part in parts for found in _delivery_ids(part)), None)
    found: list[Report] = []
    is_report = False
    for part in parts:
        match part.get_content_type():
            case "message/delivery-status":
                is_report = True
                found += _failures(part, delivery_id)
            case "message/feedback-report":
                is_report = True
                found += _complaints(part, delivery_id)
    if not is_report:
        raise ValueError("It is no delivery status notification: it has no part message/delivery-status.")
    return found[:RECIPIENT_LIMIT]


def _failures(part: Message, delivery_id: str | None) -> Iterator[Report]:
    for block in _blocks(part):
        final = _address(block, "Final-Recipient")
        if final is None:
            continue
        addresses = tuple(dict.fromkeys(one for one in (_address(block, "Original-Recipient"), final) if one))
        status = status_of(_field(block, "Status"))
        diagnostic = _field(block, "Diagnostic-Code")
        detail = _line(f"{_field(block, 'Status')} {diagnostic}")
        match _field(block, "Action").lower():
            case "failed":
                said = _CODE.match(diagnostic)
                code = int(said[1]) if said else None
                is_final = status is None or status[0] == 5
                gone = is_final and means_no_mailbox(status, code, said[2] if said else diagnostic)
                yield Report("hard" if gone else "soft", addresses, detail, delivery_id)
            case "delayed":
                yield Report("soft", addresses, detail, delivery_id)


def _complaints(part: Message, delivery_id: str | None) -> Iterator[Report]:
    for block in _blocks(part):
        kind = _field(block, "Feedback-Type").lower()
        if kind in _COMPLAINTS:
            address = _field(block, "Original-Rcpt-To").strip("<>")
            yield Report("complaint", (address,) if address else (), _line(f"feedback: {kind}"), delivery_id)


def _blocks(part: Message) -> list[Message]:
    """The groups of fields of a report's part, however the parser took them."""
    payload = part.get_payload()
    if isinstance(payload, list):
        return [block for block in payload if isinstance(block, Message)]
    return [message_from_string(text) for text in str(payload).split("\n\n")[:RECIPIENT_LIMIT]]


def _delivery_ids(part: Message) -> Iterator[str]:
    """Ids of ours in the headers of the message that came back."""
    heads = [part]
    if part.get_content_type() == "text/rfc822-headers":
        heads.append(message_from_string(str(part.get_payload())))
    for head in heads:
        named = _field(head, "X-Clarion-Delivery").strip()
        if _DELIVERY.fullmatch(named):
            yield named
        written = _field(head, "Message-ID").strip().lstrip("<").partition("@")[0]
        if _DELIVERY.fullmatch(written):
            yield written


def _address(block: Message, name: str) -> str | None:
    """The address of a field such as `rfc822; bob@example.com`."""
    given = _field(block, name)
    _, typed, address = given.partition(";")
    bare = (address if typed else given).strip().strip("<>")
    return bare if "@" in bare and len(bare) <= 320 else None


def _field(block: Message, name: str) -> str:
    """A field as text, bounded; empty when there is none."""
    value = block.get(name)
    return "" if value is None else str(value)[:2_000].strip()


def _line(text: str) -> str:
    """One printable, bounded line."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(shown.split())[:DETAIL_LIMIT]
