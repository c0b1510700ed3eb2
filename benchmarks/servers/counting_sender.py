"""A sender with all its real parts that counts its statements, transactions and chunks. For one workload only.

Statements are counted by a hook of SQLAlchemy's engines, which all statements pass, also those that go straight to
the driver; it costs time, so nothing is timed here. The counts are written as JSON to the path in COUNTS at the end.
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import event

from hub.adapters.sql_store import SqlStore
from hub.cli.run import stop_on_signals
from hub.config import load_settings
from hub.loops import run
from hub.model.vocabulary import Channel
from hub.wiring import open_core
from workers.jobs import Deliveries
from workers.role import SenderRole


class CountingRole(SenderRole):
    """What `clarion work` runs."""

    counts: Counter[str]

    async def _deliver(self, channel: Channel, deliveries: Deliveries) -> None:
        self.counts["chunks"] += 1
        self.counts["largest_chunk"] = max(self.counts["largest_chunk"], len(deliveries))
        await super()._deliver(channel, deliveries)


async def main() -> None:
    """Until SIGTERM."""
    counts: Counter[str] = Counter()
    stop = stop_on_signals()
    async with open_core(load_settings().with_generated_secrets(), "sender") as core:
        store = core.store
        assert isinstance(store, SqlStore)

        def statement(_connection: object, _cursor: object, text: str, _parameters: Any, *_: object) -> None:
            counts["statements"] += 1
            counts[" ".join(text.split()[:2])] += 1

        def committed(_connection: object) -> None:
            counts["commits"] += 1

        for engine in store._db.engines:  # noqa: SLF001
            event.listen(engine, "before_cursor_execute", statement)
            event.listen(engine, "commit", committed)
        role = CountingRole(core)
        role.counts = counts
        await role.run(stop)
    Path(os.environ["COUNTS"]).write_text(json.dumps(counts))


if __name__ == "__main__":
    run(main())
