"""What commands print: rich tables and sentences for people, one JSON document a line for programs (`--json`)."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

stdout = Console(highlight=False, soft_wrap=True)
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on one line."""
    stdout.out(msgspec.json.encode(value).decode(), highlight=False)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table for people."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    stdout.print(table)


def complain(sentence: str) -> None:
    """One sentence on standard error."""
    stderr.print(f"clarion: {sentence}", markup=False, style="red")
