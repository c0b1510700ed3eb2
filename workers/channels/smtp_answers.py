"""What a mail server's answers mean (RFC 5321 §4.2, RFC 3463). Pure.

The basic code says whether it may work later; the enhanced one, where there is one, what was wrong. An address counts
as dead only when an answer says so and nothing in it speaks of relaying, policy or content: a server that is set up
wrongly must not take the addresses of everybody out.
"""

import re
from typing import Final, NamedTuple

from hub.model.outcomes import GiveUp, Outcome, RetryAfter, Sent, Unclear

DETAIL_LIMIT: Final = 200
_ENHANCED: Final = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?=\s|$)")
_NO_SUCH_MAILBOX: Final = frozenset({550, 551, 553})
_OURS: Final = re.compile(r"relay|spam|block|blacklist|policy|authenti|reputation", re.IGNORECASE)
_BAD_SENDER: Final = frozenset({(1, 7), (1, 8)})
_NEEDS_LOGIN: Final = frozenset({530, 534, 535, 538})


class Answer(NamedTuple):
    """One answer: its code, the subject and detail of its enhanced code, and its first line for people."""

    code: int
    status: tuple[int, int] | None
    detail: str


def read_answer(code: int, text: str) -> Answer:
    """An answer taken apart. The line is bounded, and printable whatever the server sent."""
    first = text.partition("\n")[0]
    found = _ENHANCED.match(first)
    status = (int(found[2]), int(found[3])) if found else None
    shown = "".join(char if char.isprintable() else " " for char in first[: DETAIL_LIMIT * 2])
    return Answer(code, status, " ".join(shown.split())[:DETAIL_LIMIT])


def to_sender(answer: Answer) -> Outcome | None:
    """What the answer to MAIL comes to; None: go on. A refusal concerns us, hence the provider, unless it is of size."""
    if _is_good(answer):
        return None
    if answer.code == 552 or answer.status in ((2, 3), (3, 4)):
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
    return _never(answer, gone=is_dead(answer))


def is_dead(answer: Answer) -> bool:
    """Whether a permanent refusal says that there is no such mailbox."""
    if answer.status is not None:
        subject, detail = answer.status
        if subject == 1:
            return (subject, detail) not in _BAD_SENDER
        if subject == 2:
            return detail in (0, 1)  # disabled; a full one may be emptied
        if subject in (3, 5, 6, 7):
            return False
    return answer.code in _NO_SUCH_MAILBOX and _OURS.search(answer.detail) is None


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
        about_message = answer.status is not None and answer.status[0] in (1, 2, 6, 7)
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
