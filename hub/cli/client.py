"""The HTTP client of the commands that talk to a running hub. Whatever goes wrong becomes one sentence."""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hub.errors import ClarionError

if TYPE_CHECKING:
    import httpx2

    from hub.config import Settings


class CommandFailed(ClarionError):
    """A command could not do what it was asked. `status` is the hub's, when it answered."""

    def __init__(self, sentence: str, status: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status


class HubClient:
    """Calls of one hub with one API key."""

    def __init__(self, url: str | None = None, key: str | None = None) -> None:
        import httpx2

        from hub.cli.app import settings, shared_settings

        config = settings() if key else shared_settings("api_key")
        self.url = base_url(config, url)
        self.key = key or (config.api_key.get_secret_value() if config.api_key else "")
        try:
            self._client = httpx2.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {self.key}"},
                timeout=httpx2.Timeout(30.0),
                trust_env=not is_near(self.url),
            )
        except httpx2.InvalidURL as error:
            raise no_hub(self.url, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def call(self, method: str, path: str, expect: tuple[str, ...] = (), **options: Any) -> Any:
        """The JSON of a successful answer, which has these keys. Raises `CommandFailed` with the problem's own words."""
        import httpx2

        try:
            response = self._client.request(method, path, **options)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise no_hub(self.url, error) from None
        if not response.is_success:
            raise CommandFailed(words_of(response), response.status_code)
        try:
            answer = response.json() if response.content else {}
            if not set(expect) <= answer.keys():
                raise ValueError
        except (ValueError, AttributeError):
            raise CommandFailed(f"what answers at {self.url} is no hub; name the hub with --url.") from None
        return answer

    def pages(self, path: str, name: str) -> list[dict[str, Any]]:
        """All rows of a list."""
        rows: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.call(
                "GET", path, (name, "next"), params={"limit": "100", **({"cursor": cursor} if cursor else {})}
            )
            rows += page[name]
            cursor = page["next"]
            if cursor is None:
                return rows


def no_hub(url: str, error: BaseException) -> CommandFailed:
    """The failure that nobody answers."""
    reason = str(error).partition("] ")[2] or str(error) or type(error).__name__
    return CommandFailed(
        f"no hub answers at {url} ({reason.rstrip('.')}); start one with `clarion up` or name it with --url."
    )


def words_of(response: "httpx2.Response") -> str:
    """A problem document as a sentence."""
    try:
        problem = response.json()
        places = "; ".join(
            f"{error['pointer']}: {error['detail']}"
            for error in problem.get("errors", [])
            if error["pointer"] and error["detail"] != problem["detail"]
        )
        return f"{problem['detail']}{f' ({places})' if places else ''} [{problem['code']}]"
    except (ValueError, KeyError, TypeError, AttributeError):
        path = response.request.url.path
        return f"{response.request.method} {path} was answered with {response.status_code}; is this a hub?"


def base_url(config: "Settings", url: str | None) -> str:
    """Where the hub is: the given address, or where the settings let it listen."""
    return url or f"http://{reachable(config.host)}:{config.port}"


def is_near(url: str) -> bool:
    """Whether an address is on this machine: no proxy stands before it."""
    from urllib.parse import urlsplit

    from hub.origins import is_loopback_host

    return is_loopback_host(urlsplit(url).hostname or "")


def reachable(host: str) -> str:
    """An address to call for an address to listen on."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared with, not bound to
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
