"""Reports as mail systems write them: delivery status notifications (RFC 3464) and complaints (RFC 5965)."""

from typing import Final

DELIVERY: Final = "dlv_01234567890123456789abcdef_0123456789ab_email"


def notification(
    address: str,
    action: str = "failed",
    status: str = "5.1.1",
    diagnostic: str | None = None,
    *,
    delivery: str = DELIVERY,
    original: str | None = None,
    back: str = "message",
) -> bytes:
    """A notification. `back`: what it gives back of ours: the `message`, its `headers`, only its `id`, or `nothing`."""
    said = f"smtp; 550 5.1.1 <{address}> no such user" if diagnostic is None else diagnostic
    return _report(
        "delivery-status",
        "Reporting-MTA: dns; mx.example.com\nArrival-Date: Mon, 5 Jan 2026 12:00:00 +0000\n\n"
        + (f"Original-Recipient: rfc822; {original}\n" if original else "")
        + f"Final-Recipient: rfc822; {address}\nAction: {action}\nStatus: {status}\nDiagnostic-Code: {said}\n",
        back,
        delivery,
    )


def complaint(address: str, kind: str = "abuse", *, delivery: str = DELIVERY) -> bytes:
    """A complaint of somebody who pressed "this is spam"."""
    fields = f"Feedback-Type: {kind}\nUser-Agent: Loop/1\nVersion: 1\nOriginal-Rcpt-To: <{address}>\n"
    return _report("feedback-report", fields, "message", delivery)


def _report(kind: str, fields: str, back: str, delivery: str) -> bytes:
    ours = f"From: shop@example.com\nTo: bob@example.com\nMessage-ID: <{delivery}@hub.example.com>\n"
    if back in ("message", "headers"):
        ours += f"X-Clarion-Delivery: {delivery}\n"
    returned = {
        "message": f"Content-Type: message/rfc822\n\n{ours}\nHello Bob.\n",
        "headers": f"Content-Type: text/rfc822-headers\n\n{ours}",
        "id": f"Content-Type: text/rfc822-headers\n\n{ours}",
        "nothing": "Content-Type: text/plain\n\nThe message was too large to give back.\n",
    }[back]
    text = (
        "Return-Path: <>\nFrom: MAILER-DAEMON@mx.example.com\nTo: shop@example.com\nSubject: Undelivered\n"
        f'MIME-Version: 1.0\nContent-Type: multipart/report; report-type={kind}; boundary="b"\n\n'
        f"--b\nContent-Type: text/plain\n\nYour message could not be delivered.\n\n"
        f"--b\nContent-Type: message/{kind}\n\n{fields}\n--b\n{returned}\n--b--\n"
    )
    return text.replace("\n", "\r\n").encode()
