"""What every test may use. The fixtures themselves stand in tests/support."""

import os
import socket

import pytest


@pytest.fixture
def free_port() -> int:
    """A TCP port on the loopback that nobody used a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Under CI=true nothing is skipped: a skip would hide that a promise was not tested."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped under CI=true: {report.longrepr}"
