"""What commands print: rich tables and sentences for people, one JSON document a line for programs (`--json`)."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console

stdout = Console(highlight=False, soft_wrap=True)
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on one line, at once."""
    import msgspec

    print_line(msgspec.json.encode(value).decode())


def print_line(text: str) -> None:
    """A line as it is, to be copied or piped: never wrapped, never coloured."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table for people. Nothing is cut off: what does not fit is folded."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    stdout.print(table, soft_wrap=False)


def complain(sentence: str) -> None:
    """One sentence on standard error."""
    stderr.print(f"clarion: {sentence}", markup=False, style="red")
