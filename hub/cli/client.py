"""The HTTP client of the commands that talk to a running hub. Whatever goes wrong becomes one sentence."""

from types import TracebackType
from typing import Any, Self

import httpx2

from hub.config import Settings
from hub.errors import ClarionError


class CommandFailed(ClarionError):
    """A command could not do what it was asked."""


class HubClient:
    """Calls of one hub with one API key."""

    def __init__(self, settings: Settings, url: str | None = None, key: str | None = None) -> None:
        self.url = (url or f"http://{reachable(settings.host)}:{settings.port}").rstrip("/")
        if key is None:
            settings = settings.with_generated_secrets()
            assert settings.api_key is not None
            key = settings.api_key.get_secret_value()
        self.key = key
        self._client = httpx2.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=httpx2.Timeout(30.0)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of a successful answer. Raises `CommandFailed` with the problem's own words."""
        try:
            response = self._client.request(method, path, **options)
        except httpx2.HTTPError as error:
            raise CommandFailed(
                f"no hub answers at {self.url} ({error}); start one with `clarion up` or name it with --url."
            ) from None
        if response.is_success:
            return response.json() if response.content else None
        raise CommandFailed(_words(response))


def _words(response: httpx2.Response) -> str:
    try:
        problem = response.json()
        places = "; ".join(f"{error['pointer']}: {error['detail']}" for error in problem.get("errors", []))
        return f"{problem['detail']}{f' ({places})' if places else ''} [{problem['code']}]"
    except (ValueError, KeyError, TypeError):
        return f"the hub answered {response.status_code} to {response.request.method} {response.request.url.path}."


def reachable(host: str) -> str:
    """An address to call for an address to listen on."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared with, not bound to
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
