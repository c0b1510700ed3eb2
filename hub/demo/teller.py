"""Tells a story as it happens: calm lines for people, or one JSON document a line for programs (`--json`)."""

from collections.abc import Sequence
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hub.cli.output import print_json
from hub.demo.sinks.arrivals import Arrived
from hub.model.vocabulary import Channel

Json = dict[str, Any]
NAMES: Final = {
    Channel.EMAIL: ("e-mail", "green"),
    Channel.SMS: ("SMS", "magenta"),
    Channel.WEB_PUSH: ("push", "cyan"),
    Channel.IN_APP: ("in app", "blue"),
}
_LABEL_WIDTH: Final = 8
_EXCERPT_LINES: Final = 16


class Teller:
    """Where a story is told. Every line that people get has its JSON twin."""

    def __init__(self, console: Console, *, as_json: bool) -> None:
        self._console = console
        self._as_json = as_json
        self._acts = 0
        self._told: set[str] = set()

    def title(self, title: str, words: str) -> None:
        """The beginning."""
        if self._as_json:
            print_json({"kind": "story", "title": title, "words": words})
            return
        self._console.print()
        self._console.print(Text(title, "bold"))
        self._console.print(Text(words, "dim"))

    def act(self, title: str, words: str = "") -> None:
        """A new act, and what it shows."""
        self._acts += 1
        self._told.clear()
        if self._as_json:
            print_json({"kind": "act", "number": self._acts, "title": title, "words": words})
            return
        self._console.print()
        self._console.rule(Text(f"{self._acts}. {title}", "bold"), align="left", style="dim")
        if words:
            self._console.print(Text(words, "dim"))

    def did(self, what: str) -> None:
        """Something that somebody did."""
        self._line("did", "", "", Text(what), {"what": what})

    def note(self, what: str) -> None:
        """An explanation."""
        self._line("note", "", "", Text(what, "dim"), {"what": what})

    def arrived(
        self, person: str, arrived: Arrived, seconds: float, *, text: bool = False, through: str = ""
    ) -> None:
        """A message that reached its person. `text`: show what it says, not only its title."""
        name, style = NAMES[arrived.channel]
        shown = Text(f"to {person}: ")
        lines = [line.rstrip() for line in arrived.text.strip().splitlines()]
        shown.append(arrived.title or " ".join(lines), "bold")
        if text and arrived.title:
            kept = lines[:_EXCERPT_LINES] + (["..."] if len(lines) > _EXCERPT_LINES else [])
            shown.append("".join(f"\n  {line}" for line in kept), "italic")
        shown.append(f"\n{through or f'through {arrived.by}'}, after {seconds:.1f} s", "dim")
        self._line(
            "arrived",
            name,
            style,
            shown,
            {
                "channel": arrived.channel,
                "user": person,
                "to": arrived.to,
                "title": arrived.title,
                "text": arrived.text,
                "by": arrived.by,
                "seconds": round(seconds, 3),
            },
        )

    def shown(self, person: str, what: str) -> None:
        """Something that appeared in somebody's open app."""
        name, style = NAMES[Channel.IN_APP]
        shown = Text(f"{person} sees: ").append(what, "bold")
        self._line("shown", name, style, shown, {"user": person, "what": what})

    def logged(self, line: Json) -> None:
        """A line of the delivery log."""
        shown = Text(line["state"], "bold yellow")
        words = [str(line[name]) for name in ("user", "provider", "reason") if line.get(name)]
        shown.append(f" {', '.join(words)}")
        detail = line.get("detail")
        if detail and detail not in self._told:  # the same again says nothing new
            shown.append(f"\n{detail}", "dim")
            self._told.add(detail)
        self._line("logged", "log", "yellow", shown, {"line": line})

    def right(self, what: str) -> None:
        """Something that was checked and is as it should be."""
        self._line("checked", "ok", "bold green", Text(what), {"what": what, "ok": True})

    def wrong(self, what: str) -> None:
        """Something that is not as it should be."""
        self._line("checked", "wrong", "bold red", Text(what), {"what": what, "ok": False})

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Figures: one row for each, one column for each time or thing that has them."""
        if self._as_json:
            names = ["figure", *columns[1:]]
            for row in rows:
                print_json({"kind": "figures", "title": title, **dict(zip(names, row, strict=True))})
            return
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        self._console.print()
        self._console.print(Text(title, "bold"))
        self._console.print(table, soft_wrap=False)

    def _line(self, kind: str, label: str, style: str, shown: Text, document: Json) -> None:
        if self._as_json:
            print_json({"kind": kind, **document})
            return
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=_LABEL_WIDTH, no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(Text(f"  {label}", style), shown)
        self._console.print(grid if label else shown, soft_wrap=False)
