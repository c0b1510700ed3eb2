"""A node for every test of the API: on the memory adapters, and where a module asks for it on real servers too."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.support.api import Api, open_api
from tests.support.clock import FakeClock


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module with `ON = ("memory", "servers")` runs twice; its lists of refusals, which never get that far, do not."""
    if "servers" in metafunc.fixturenames:
        refusals = metafunc.definition.get_closest_marker("parametrize") is not None
        parts = ("memory",) if refusals else getattr(metafunc.module, "ON", ("memory",))
        metafunc.parametrize("servers", parts, indirect=True)


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of the servers in use; none for the memory adapters."""
    if request.param == "memory":
        return {}
    return {
        "redis_url": SecretStr(request.getfixturevalue("redis_url")),
        "redis_prefix": request.getfixturevalue("redis_prefix"),
        "database_url": SecretStr(request.getfixturevalue("migrated_postgresql_url")),
    }


@pytest.fixture
async def api(servers: dict[str, Any], tmp_path: Path, clock: FakeClock) -> AsyncIterator[Api]:
    async with open_api(tmp_path, clock, **servers) as one:
        yield one
