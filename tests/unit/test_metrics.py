"""The metrics of several processes as one scrape."""

from prometheus_client.parser import text_string_to_metric_families

from hub.metrics import Metrics


def samples(text: bytes) -> dict[tuple[str, str], float]:
    """Values by name and process ("": without the label)."""
    return {
        (sample.name, sample.labels.get("process", "")): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_processes_keep_apart_by_their_names() -> None:
    first, second = Metrics("node", "node-1"), Metrics("node", "node-2")
    first.intake.accepted("http", 2)
    second.intake.accepted("http", 3)
    for one in (first, second):
        one.waiting({"lane": 7})
    peer, _ = second.exposition(alone=True)
    assert b"clarion_queue_waiting" not in peer  # of the deployment, which whoever is asked tells once
    found = samples(first.exposition(peers=[peer.decode()])[0])
    assert found["clarion_events_accepted_total", "node-1"] == 2
    assert found["clarion_events_accepted_total", "node-2"] == 3
    assert [place for place in found if place[0] == "clarion_queue_waiting"] == [
        ("clarion_queue_waiting", "")
    ]


def test_one_process_needs_no_name() -> None:
    metrics = Metrics()
    metrics.intake.accepted("http", 2)
    assert samples(metrics.exposition()[0])["clarion_events_accepted_total", ""] == 2
    assert b"process=" not in metrics.exposition("application/openmetrics-text")[0]


def test_a_clock_that_is_ahead_makes_no_negative_latency() -> None:
    metrics = Metrics()
    metrics.live.latency("personal", 15_000)
    metrics.live.latency("personal", -2_000_000)
    found = samples(metrics.exposition()[0])
    assert found["clarion_accept_to_socket_seconds_count", ""] == 2
    assert found["clarion_accept_to_socket_seconds_sum", ""] == 0.015
