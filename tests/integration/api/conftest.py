"""A node on the memory adapters for every test of the API."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.api import Api, open_api
from tests.support.clock import FakeClock


@pytest.fixture
async def api(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Api]:
    async with open_api(tmp_path, clock) as one:
        yield one
