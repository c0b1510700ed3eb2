"""What a refused e-mail says about its address: the enhanced status codes of mail systems (RFC 3463). Pure.

An address counts as dead only when a refusal says so and nothing in it speaks of relaying, policy or content: a server
that is set up wrongly must not take everybody's address out.
"""

import re
from typing import Final

_ENHANCED: Final = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?=\s|$|;)")
_NO_SUCH_MAILBOX: Final = frozenset({550, 551, 553})  # RFC 5321 §4.2.3
_ABOUT_US: Final = re.compile(r"relay|spam|block|blacklist|policy|authenti|reputation", re.IGNORECASE)
_BAD_SENDER: Final = frozenset({7, 8})  # X.1.7 and X.1.8

Status = tuple[int, int, int]


def status_of(text: str) -> Status | None:
    """The enhanced code that a text begins with: 5.1.1 as (5, 1, 1)."""
    found = _ENHANCED.match(text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def means_no_mailbox(status: Status | None, code: int | None, text: str) -> bool:
    """Whether a permanent refusal says that there is no such mailbox. `code`: the basic one, where it is known."""
    _, subject, detail = status or (5, 0, 0)
    if subject == 1:
        return detail not in _BAD_SENDER
    if subject == 2:
        return detail == 1  # disabled; a full one (2) may be emptied
    if subject in (3, 5, 6, 7):  # the system, the protocol, the content, policy
        return False
    if _ABOUT_US.search(text):
        return False
    if code is not None:
        return code in _NO_SUCH_MAILBOX
    return subject == 0 or detail == 4  # X.4.4: there is no way to its domain
