"""What a mail server's answers mean (RFC 5321 §4.2). Pure.

The basic code says whether it may work later; the enhanced one, where there is one, what was wrong. What a refusal says
about the address itself is `hub.model.mail_status`, which bounces share.
"""

from typing import Final, NamedTuple

from hub.model.mail_status import Status, means_no_mailbox, status_of
from hub.model.outcomes import GiveUp, Outcome, RetryAfter, Sent, Unclear

DETAIL_LIMIT: Final = 200
_NEEDS_LOGIN: Final = frozenset({530, 534, 535, 538})


class Answer(NamedTuple):
    """One answer: its code, its enhanced code, and its first line for people."""

    code: int
    status: Status | None
    detail: str


def read_answer(code: int, text: str) -> Answer:
    """An answer taken apart. The line is bounded, and printable whatever the server sent."""
    first = text.partition("\n")[0]
    shown = first[: DETAIL_LIMIT * 2]
    if not shown.isprintable():
        shown = "".join(char if char.isprintable() else " " for char in shown)
    return Answer(code, status_of(first), " ".join(shown.split())[:DETAIL_LIMIT])


def to_sender(answer: Answer) -> Outcome | None:
    """What the answer to MAIL comes to; None: go on. A refusal concerns us, hence the provider, unless it is of size."""
    if _is_good(answer):
        return None
    if answer.code == 552 or (answer.status or (5, 0, 0))[1:] in ((2, 3), (3, 4)):
        return _later(answer, ours=False) if answer.code < 500 else _never(answer)
    return _later(answer)


def to_recipient(answer: Answer) -> Outcome | None:
    """What the answer to RCPT comes to; None: go on."""
    if _is_good(answer):
        return None
    if answer.code == 421 or answer.code in _NEEDS_LOGIN or not 400 <= answer.code < 600:
        return _later(answer)
    if answer.code < 500:
        return _later(answer, ours=False)  # greylisting, a full or busy mailbox
    return _never(answer, gone=means_no_mailbox(answer.status, answer.code, answer.detail))


def to_data(answer: Answer) -> Outcome | None:
    """What the answer to DATA comes to; None: send the message."""
    if answer.code == 354:
        return None
    return _never(answer) if 500 <= answer.code < 600 else _later(answer)


def to_message(answer: Answer) -> Outcome:
    """What the answer to the whole message comes to."""
    if _is_good(answer):
        return Sent(str(answer.code), answer.detail)
    if 400 <= answer.code < 500:
        # About the system it concerns all messages; about this one's content or recipient it does not.
        about_message = answer.status is not None and answer.status[1] in (1, 2, 6, 7)
        return _later(answer, ours=answer.code == 421 or not about_message)
    if 500 <= answer.code < 600:
        return _never(answer)
    return Unclear(str(answer.code), answer.detail)


def _is_good(answer: Answer) -> bool:
    return 200 <= answer.code < 300


def _later(answer: Answer, *, ours: bool = True) -> RetryAfter:
    return RetryAfter(str(answer.code), answer.detail, is_providers_fault=ours)


def _never(answer: Answer, *, gone: bool = False) -> GiveUp:
    return GiveUp(str(answer.code), answer.detail, target_is_gone=gone)
