"""Reports of mail systems: which recipients failed for good, which may recover, who complained; and hostile ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.model.bounce_reports import BLOCK_LIMIT, Report, read_reports
from tests.support.bounce_mail import DELIVERY, complaint, notification

pytestmark = pytest.mark.req("I8")


def test_a_mailbox_that_does_not_exist() -> None:
    [report] = read_reports(notification("bob@example.com"))
    assert report == Report(
        "hard", ("bob@example.com",), "5.1.1 smtp; 550 5.1.1 <bob@example.com> no such user", DELIVERY
    )


@pytest.mark.parametrize(
    ("action", "status", "diagnostic", "kind"),
    [
        ("failed", "5.1.1", "smtp; 550 5.1.1 unknown", "hard"),
        ("failed", "5.1.2", "dns; NXDOMAIN", "hard"),
        ("failed", "5.4.4", "X-Postfix; Host not found", "hard"),
        ("failed", "5.0.0", "smtp; 550 no such user", "hard"),
        ("failed", "5.0.0", "smtp; 554 no", "soft"),
        ("failed", "5.0.0", "smtp; 550 relaying denied", "soft"),
        ("failed", "5.2.1", "smtp; 550 disabled", "hard"),
        ("failed", "5.2.2", "smtp; 552 5.2.2 over quota", "soft"),
        ("failed", "5.7.1", "smtp; 550 5.7.1 looks like spam", "soft"),
        ("failed", "5.1.8", "smtp; 550 5.1.8 bad sender", "soft"),
        ("failed", "4.4.7", "smtp; 451 gave up after days", "soft"),
        ("Failed", "nonsense", "", "hard"),
        ("delayed", "4.2.2", "smtp; 452 full", "soft"),
    ],
)
def test_what_failures_mean(action: str, status: str, diagnostic: str, kind: str) -> None:
    [report] = read_reports(notification("bob@example.com", action, status, diagnostic))
    assert report.kind == kind


@pytest.mark.parametrize("action", ["delivered", "relayed", "expanded", ""])
def test_good_news_is_no_failure(action: str) -> None:
    assert read_reports(notification("bob@example.com", action, "2.0.0", "smtp; 250 ok")) == []


def test_the_address_that_was_written_to_stands_beside_the_one_that_failed() -> None:
    [report] = read_reports(notification("bob@other.example", original="bob@example.com"))
    assert report.addresses == ("bob@example.com", "bob@other.example")


@pytest.mark.parametrize("back", ["message", "headers", "id"])
def test_our_delivery_is_found_in_what_came_back(back: str) -> None:
    [report] = read_reports(notification("bob@example.com", back=back))
    assert report.delivery_id == DELIVERY
    [report] = read_reports(notification("bob@example.com", back="nothing"))
    assert report.delivery_id is None


def test_complaints() -> None:
    [report] = read_reports(complaint("bob@example.com"))
    assert (report.kind, report.addresses, report.delivery_id) == (
        "complaint",
        ("bob@example.com",),
        DELIVERY,
    )
    assert read_reports(complaint("bob@example.com", "not-spam")) == []


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"Subject: hi\r\n\r\nI am away.",
        b"\x00\xff\xfe",
        b"Content-Type: multipart/report\r\n\r\nno boundary",
        b"Content-Type: message/delivery-status\r\n\r\n" + b"\n" * (BLOCK_LIMIT * 3),
        b"".join(
            b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n) for n in range(3_000)
        ),
        b"Content-Type: text/plain; charset=no-such-thing\r\n\r\nx",
    ],
)
def test_what_is_no_report_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        read_reports(raw)


@pytest.mark.req("R35")
@settings(deadline=None)
@given(st.binary(max_size=400), st.integers(0, 1_500))
def test_whatever_comes_it_is_a_report_or_not(noise: bytes, place: int) -> None:
    raw = notification("bob@example.com")
    try:
        found = read_reports(raw[:place] + noise + raw[place:])
    except ValueError:
        return
    assert all(report.detail.isprintable() or not report.detail for report in found)


@pytest.mark.req("R35")
def test_a_report_of_many_is_bounded() -> None:
    block = b"Final-Recipient: rfc822; u@x.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n"
    raw = b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\n" + block * 3_000
    assert len(read_reports(raw)) == 100
