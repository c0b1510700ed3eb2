"""`clarion replay` against a running deployment: what it tries again, what it refuses, what it says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, delete, insert, select

from hub.adapters.sql_store.tables import deliveries, payloads
from tests.support.cluster import Cluster
from tests.support.command import Shell, cluster_of_module

pytestmark = [pytest.mark.req("R8"), pytest.mark.slow]

ROW: dict[str, Any] = {
    "notification_id": "ntf_1", "event_id": "evt_1", "slice_key": "0", "type": "news", "category": "news",
    "reason": "exhausted", "condition": "always", "created_at_us": 1_767_614_400_000_000, "due_at_us": 1,
    "fallback": "[]", "provider": "smtp-1",
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of_module(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
def clarion(cluster: Cluster, tmp_path: Path) -> Iterator[Shell]:
    """The command, beside a database with two dead mails, a text that may have arrived and one without its event."""
    rows = [
        {**ROW, "user_id": "a", "id": "dlv_a", "channel": "email", "state": "dead"},
        {**ROW, "user_id": "b", "id": "dlv_b", "channel": "email", "state": "dead"},
        {**ROW, "user_id": "c", "id": "dlv_c", "channel": "sms", "state": "unknown"},
        {**ROW, "user_id": "d", "id": "dlv_d", "channel": "web_push", "state": "dead", "event_id": "evt_2"},
    ]
    engine = create_engine(f"sqlite:///{cluster.folder / 'clarion.db'}")
    with engine.begin() as connection:
        connection.execute(delete(deliveries))
        connection.execute(delete(payloads))
        connection.execute(insert(deliveries), rows)
        connection.execute(insert(payloads), {"event_id": "evt_1", "slice_key": "0", "raw": b"-"})
    yield Shell({**cluster.environment, "CLARION_PORT": str(cluster.nodes[0].port)}, tmp_path)
    engine.dispose()


def dead(cluster: Cluster) -> set[str]:
    engine = create_engine(f"sqlite:///{cluster.folder / 'clarion.db'}")
    with engine.connect() as connection:
        found = connection.execute(select(deliveries.c.id).where(deliveries.c.state.in_(("dead", "unknown"))))
        ids = {row.id for row in found}
    engine.dispose()
    return ids


def test_by_id_by_filter_and_as_json(clarion: Shell, cluster: Cluster) -> None:
    said = clarion("replay", "dlv_a")
    assert said.code == 0
    assert "1 will be tried again." in said.stdout
    answer = clarion("replay", "--channel", "email", "--since", "2026-01-01T00:00:00Z", "--json").json
    assert (answer["replayed"], answer["refused"]) == (1, {})
    assert dead(cluster) == {"dlv_c", "dlv_d"}


def test_what_stays_is_said_with_its_reason(clarion: Shell, cluster: Cluster) -> None:
    said = clarion("replay", "--all")
    assert said.code == 0
    assert "2 will be tried again." in said.stdout
    assert "1 stay: The event that it is made of is not kept any more." in said.stdout
    said = clarion("replay", "dlv_c")
    assert "0 will be tried again." in said.stdout
    assert "may deliver it twice" in said.stdout
    assert clarion("replay", "dlv_c", "--unknown", "--json").json["replayed"] == 1
    assert dead(cluster) == {"dlv_d"}


def test_a_mistake_gets_one_sentence(clarion: Shell, cluster: Cluster) -> None:
    for args, code, words in (
        ((), 2, "nothing is named"),
        (("dlv_a", "--all"), 2, "leave out everything else"),
        (("--events", "--channel", "email"), 2, "of events only --since can be asked"),
        (("--channel", "pigeon"), 2, "pigeon"),
        (("--limit", "0", "--all"), 2, "limit"),
        (("--since", "yesterday"), 1, "not an RFC 3339 date"),
        (("--all", "--key", "nobodys-key-0123456789"), 1, "[unauthorized]"),
        (("--all", "--url", "http://127.0.0.1:1"), 1, "no hub answers"),
    ):
        ended = clarion("replay", *args)
        assert ended.code == code, ended
        assert words in ended.sentence, ended
    assert len(dead(cluster)) == 4
