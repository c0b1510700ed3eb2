"""The pages below docs/: every block of code in them is read or run as what it is, and tables of code match the code."""

import json
import re
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hub.api.models import ExpansionShown
from hub.api.push_models import DeviceInput
from hub.bounces import Bounce
from hub.config import load_settings
from hub.model.checks import type_errors
from hub.model.deliveries import MOVES
from hub.model.retries import SCHEDULES
from hub.model.types import ChannelRule, TypeDefinition
from hub.model.vocabulary import Channel

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page for page in [*(ROOT / "docs").rglob("*.md"), ROOT / "CHANGELOG.md"] if "protocols" not in page.parts
)
FENCED = re.compile(r"^```[a-z]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)((?: {4}.*\n|\n(?= {4}))+)")


def blocks(page: Path) -> list[str]:
    """The blocks of code of a page, fenced or indented."""
    text = page.read_text()
    fenced = FENCED.findall(text)
    return [textwrap.dedent(found).strip() for found in fenced + INDENTED.findall(FENCED.sub("", text))]


def settings(block: str) -> None:
    """Lines for the environment, as they would be read."""
    given = dict(re.findall(r'^CLARION_([A-Z_]+)="(.*)"$', block, re.MULTILINE))
    assert len(given) == len(block.splitlines())
    given = {
        name.lower(): re.sub(r"credentials=\S+", f"credentials={__file__}", value)
        for name, value in given.items()
    }
    read = load_settings(**{"email_from": "shop@example.com", **given})
    for name, value in given.items():
        shown = getattr(read, name)
        assert (shown if isinstance(shown, str) else shown.get_secret_value()) == value


def type_definition(block: str) -> None:
    definition = msgspec.json.decode(block, type=TypeDefinition)
    assert type_errors(definition) == []


def channel_rule(block: str) -> None:
    channels = tomllib.loads(block)["channels"]
    assert msgspec.convert(channels, dict[Channel, ChannelRule])


def body_of(model: type) -> Callable[[str], None]:
    def check(block: str) -> None:
        msgspec.json.decode(block, type=model)

    return check


def answer_of(model: type) -> Callable[[str], None]:
    """A part of an answer: its fields exist."""

    def check(block: str) -> None:
        assert set(json.loads(block)) <= set(model.__struct_fields__)

    return check


def static_file(block: str) -> None:
    """A script of the product by its address; browsers run it in tests/e2e/test_push_chromium.py."""
    [path] = re.findall(r"https://hub\.example\.com/(static/[a-z.-]+)", block)
    assert (ROOT / path).is_file()
    for name in re.findall(r"const \{ (\w+) \}", block):
        assert f"export async function {name}" in (ROOT / path).read_text()


def mail_alias(block: str) -> None:
    """A line of /etc/aliases that posts to a call; tests/integration/api/test_bounces.py posts such a report."""
    assert "Content-Type: message/rfc822" in block
    assert block.endswith('/v1/bounces"')


# How a block begins on its page, and what it is.
KNOWN: dict[tuple[str, str], Callable[[str], None]] = {
    ("email.md", "CLARION_"): settings,
    ("email.md", "[channels.email]"): channel_rule,
    ("email.md", '{"address"'): body_of(Bounce),
    ("email.md", "shop: "): mail_alias,
    ("sms.md", "CLARION_"): settings,
    ("mobile-push.md", "CLARION_"): settings,
    ("mobile-push.md", '{"token"'): body_of(DeviceInput),
    ("web-push.md", "importScripts"): static_file,
    ("web-push.md", "const { enablePush }"): static_file,
    ("timing.md", "{"): type_definition,
    ("broadcasts.md", '{"channel"'): answer_of(ExpansionShown),
}
FOUND = [(page.name, block) for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize(("page", "block"), FOUND, ids=[f"{page} {block[:24]!r}" for page, block in FOUND])
def test_a_block_is_what_it_says(page: str, block: str) -> None:
    checks = [check for (name, start), check in KNOWN.items() if name == page and block.startswith(start)]
    assert len(checks) == 1, "no test reads or runs this block"
    checks[0](block)


def test_every_known_block_is_there() -> None:
    for name, start in KNOWN:
        assert any(page == name and block.startswith(start) for page, block in FOUND), (name, start)


def test_the_table_of_moves_is_the_codes() -> None:
    told: dict[str, set[str]] = {}
    for states, moves in re.findall(
        r"^\| (`\w+`(?:, `\w+`)*) \| .*? \| (.*?) ?\|$", backfill(), re.MULTILINE
    ):
        for state in re.findall(r"`(\w+)`", states):
            told[state] = set(re.findall(r"`(\w+)`", moves))
    assert told == {state: set(moves) for state, moves in MOVES.items()}


def test_the_table_of_schedules_is_the_codes() -> None:
    seconds = {"s": 1, "min": 60, "h": 3600, "hours": 3600, "day": 86_400, "days": 86_400}

    def duration(text: str) -> int:
        number, unit = text.split()
        return int(number) * seconds[unit]

    rows = re.findall(r"^\| (.*?) \| ([\d].*?) \| (\d+) \| (.*?) \| (.*?) \|$", backfill(), re.MULTILINE)
    names = {"e-mail": Channel.EMAIL, "SMS": Channel.SMS}
    names |= {"web push": Channel.WEB_PUSH, "mobile push": Channel.MOBILE_PUSH}
    told = {
        names[name]: (
            tuple(map(duration, pauses.split(", "))),
            int(attempts),
            duration(age),
            duration(patience),
        )
        for channels, pauses, attempts, age, patience in rows
        for name in channels.split(", ")
    }
    assert told == {
        channel: (one.pauses_seconds, one.attempts, one.max_age_seconds, one.fallback_seconds)
        for channel, one in SCHEDULES.items()
    }


def backfill() -> str:
    return (ROOT / "docs" / "backfill.md").read_text()
