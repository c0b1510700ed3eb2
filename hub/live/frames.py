"""Frames of personal channels and `log`, and the header that generators give to nodes.

The header is a few words, `name=value`, parted by semicolons: `kind`, `reach` (the notification to report as
reached) and `at` (when the event was accepted). A payload is never parsed.
"""

from typing import NamedTuple

from hub.live.seam import Frame
from hub.ports import Message


class Header(NamedTuple):
    """What a publication's header says."""

    kind: str = "notification"
    report_id: str = ""
    accepted_at_us: int = 0


def parse_header(text: str) -> Header:
    """Read a header; words that are not known, or that make no sense, count as absent."""
    kind, report_id, accepted_at_us = Header()
    for word in text.split(";"):
        name, _, value = word.partition("=")
        if name == "kind" and value:
            kind = value
        elif name == "reach":
            report_id = value
        elif name == "at" and value.isdecimal():
            accepted_at_us = int(value)
    return Header(kind, report_id, accepted_at_us)


class PersonalFrame(Frame):
    """A frame as its channel keeps it."""

    __slots__ = ("accepted_at_us", "size")

    def __init__(self, message: Message) -> None:
        header = parse_header(message.header)
        super().__init__(
            message.channel, message.epoch, message.offset, header.kind, message.payload, header.report_id
        )
        self.accepted_at_us = header.accepted_at_us
        self.size = len(message.payload)
