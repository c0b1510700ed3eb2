"""A hub node and a generator on the memory adapters, called over ASGI, every answer held against the OpenAPI text."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx2
import jsonschema_rs
import msgspec
from pydantic import SecretStr
from starlette.routing import BaseRoute

from hub.adapters.redis_bus import RedisBus
from hub.adapters.redis_queue import RedisQueue
from hub.adapters.sql_store import SqlStore
from hub.api.app import TABLE, create_app
from hub.api.docs import documentation_routes
from hub.api.openapi import build_openapi
from hub.config import Settings
from hub.wiring import Core, Hub, core_of, generator_of, memory_core, migrate_database, open_hub
from tests.support.clock import FakeClock
from tests.support.push_service import VAPID_KEY

FIRST_KEY = "the-first-key-of-this-test"
SECRET = "a token secret that has at least sixty-four bytes, for any hash at all"
ORIGIN = "http://hub.test"

Json = dict[str, Any]
Response = httpx2.Response


class Contract:
    """The OpenAPI text as a judge of answers."""

    def __init__(self) -> None:
        table = [*TABLE, *documentation_routes(TABLE, ORIGIN)]
        self.document: Json = msgspec.json.decode(msgspec.json.encode(build_openapi(table, ORIGIN)))
        self._patterns = [
            (re.compile("^" + re.sub(r"\\\{(\w+)\\\}", self._part, re.escape(path)) + "$"), path)
            for path in self.document["paths"]
        ]
        self._validators: dict[str, Any] = {}

    @staticmethod
    def _part(match: "re.Match[str]") -> str:
        return ".+" if match[1] == "event" else "[^/]+"

    def check(self, method: str, path: str, response: Response) -> None:
        """Raise AssertionError when an answer is not what the text says."""
        assert response.headers["x-request-id"]
        problem = response.headers.get("content-type") == "application/problem+json"
        if problem and method != "HEAD":
            self._validate({"$ref": "#/components/schemas/Problem"}, response.json())
            assert response.json()["status"] == response.status_code
            assert response.json()["request_id"] == response.headers["x-request-id"]
        operation = self._operation(method, path)
        if operation is None:
            assert response.status_code in (204, 404, 405), (method, path, response.status_code)
            return
        described = operation["responses"].get(str(response.status_code))
        if described is None:
            assert problem, f"{method} {path} answered {response.status_code}, which is not described"
            assert response.status_code in (404, 500), f"{method} {path}: {response.text}"
            return
        if "$ref" in described or problem:
            assert problem, response.text
            return
        media = described.get("content", {})
        if not media:
            assert response.content == b"", response.text
            return
        media_type = response.headers["content-type"].partition(";")[0]
        if method != "HEAD" and media_type == "application/json":
            self._validate(media[media_type]["schema"], response.json())

    def _operation(self, method: str, path: str) -> Json | None:
        wanted = "get" if method == "HEAD" else method.lower()
        for pattern, template in self._patterns:
            operations = self.document["paths"][template]
            if pattern.match(path) and wanted in operations:
                return cast(Json, operations[wanted])
        return None

    def _validate(self, schema: Json, value: Any) -> None:
        key = msgspec.json.encode(schema).decode()
        validator = self._validators.get(key)
        if validator is None:
            whole = {**schema, "components": self.document["components"]}
            validator = self._validators[key] = jsonschema_rs.Draft202012Validator(whole)
        errors = [f"{list(error.instance_path)}: {error.message}" for error in validator.iter_errors(value)]
        assert not errors, f"{errors} in {value}"


CONTRACT = Contract()


class Api:
    """Calls the API as somebody; `key`, `token` and `session` say as whom."""

    def __init__(self, hub: Hub, core: Core, clock: FakeClock, routes: Sequence[BaseRoute] = ()) -> None:
        self.hub = hub
        self.core = core
        self.clock = clock
        self.app = create_app(hub, routes)
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
        self.client = httpx2.AsyncClient(transport=transport, base_url=ORIGIN)

    async def call(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        token: str | None = None,
        session: str | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> Response:
        """One request, its answer checked. `key="first"` is the key with all scopes; `token` and `session` name users."""
        sent = dict(headers or {})
        if key is not None:
            sent["authorization"] = f"Bearer {FIRST_KEY if key == 'first' else key}"
        if token is not None:
            sent["authorization"] = f"Bearer {self.token(token)}"
        if session is not None:
            sent["cookie"] = f"clarion_session={await self.session(session)}"
        response = await self.client.request(method, path, headers=sent, **more)
        self.client.cookies.clear()
        CONTRACT.check(method, response.request.url.path, response)
        return response

    async def key(self, *scopes: str) -> str:
        """The secret of a new key with these scopes."""
        return (await self.hub.keys.create("test", scopes))[1]

    def token(self, user_id: str) -> str:
        """A token of a user."""
        return self.hub.access.tokens.issue(user_id)

    async def session(self, user_id: str) -> str:
        """The cookie's value of a user's session."""
        return self.hub.sessions.open(await self.hub.access.tokens.verify(self.token(user_id)))[0]

    async def settle(self) -> None:
        """Let the generator plan all that waits."""
        generator = generator_of(self.core)
        task = asyncio.create_task(generator.run())
        try:
            async with asyncio.timeout(20):
                while sum((await self.hub.queue.waiting()).values()):
                    await asyncio.sleep(0.005)
        finally:
            task.cancel()
            await asyncio.wait([task])


def settings_for(folder: Path, **more: Any) -> Settings:
    """Settings of a test node that listens nowhere."""
    return Settings(
        data_dir=folder,
        public_url=ORIGIN,
        api_key=SecretStr(FIRST_KEY),
        token_secret=SecretStr("".join(SECRET.split())),
        vapid_private_key=SecretStr(VAPID_KEY),
        partitions=2,
        _env_file=None,
        **more,
    )


async def real_core(settings: Settings, clock: FakeClock) -> Core:
    """A core on the Valkey and the database of the settings, with a clock that the test moves."""
    assert settings.redis_url is not None
    assert settings.database_url is not None
    await migrate_database(settings)
    redis, prefix = settings.redis_url.get_secret_value(), settings.redis_prefix
    store = SqlStore(settings.sqlalchemy_url.get_secret_value())
    queue = RedisQueue(redis, prefix, settings.partitions)
    return await core_of(settings, clock, store, queue, RedisBus(redis, prefix, settings.partitions), "test")


@asynccontextmanager
async def open_api(folder: Path, clock: FakeClock, **settings: Any) -> AsyncIterator[Api]:
    """A node on the memory adapters, or, with `redis_url` and `database_url`, on real servers."""
    chosen = settings_for(folder, **settings)
    core = await (real_core if chosen.redis_url is not None else memory_core)(chosen, clock)
    async with open_hub(core) as hub:
        api = Api(hub, core, clock)
        try:
            yield api
        finally:
            await api.client.aclose()
    await core.queue.close()
    await core.bus.close()
    await core.store.close()
