"""Logs: structured, one line a record, text on a terminal and JSON elsewhere; no token, key or secret in any of them.

Every record passes here, the libraries' and uvicorn's access lines included. Redaction looks at names (`token`,
`password`, …), at shapes (JWTs, Bearer headers, our API keys, passwords in URLs) and at the secrets that the settings
hold; it errs on the side of hiding. Losing a log line never stops the product.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from hub.config import Settings

HIDDEN = "[redacted]"
_SHOWN = rf"\g<keep>{HIDDEN}"
# A variable of our own: binding one in structlog's context costs ten times as much, and every request does it.
current_request_id: ContextVar[str] = ContextVar("request_id", default="")

_SECRET_NAME = re.compile(
    r"(?i)(token|secret|passw|passphrase|authorization|cookie|credential|api[-_]?key|^key$|^jwt$)"
)
_NAMES = r"(?:access_token|refresh_token|token|jwt|api_?key|secret|password|passwd)"
_NAME_WORDS = ("token", "jwt", "api", "secret", "passw")
# Each with small words of which one stands in every match: most texts hold none, and looking for them is quick.
_SHAPES = (
    (("?", "&"), re.compile(r"(?i)(?P<keep>[?&](?:key|code|login|link|signature)=)[^&\s\"'#]+")),
    # ?token=… in an address, token=… in a text
    (
        _NAME_WORDS,
        re.compile(rf"(?i)(?P<keep>(?<![\w-]){_NAMES}(?:=|%3D))(?!\[redacted)[^&\s\"'\\,;)\]}}]+"),
    ),
    # "token": "…" in an embedded JSON or repr
    (
        _NAME_WORDS,
        re.compile(rf"(?i)(?P<keep>[\"']{_NAMES}\\?[\"']\s*:\s*\\?[\"'])[^\"'\\]+"),
    ),
    (
        ("bearer", "basic"),
        re.compile(r"(?i)(?P<keep>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=|-]{6,}"),
    ),
    (
        ("cookie", "authorization"),
        re.compile(r"(?i)(?P<keep>\b(?:set-cookie|cookie|authorization)\s*:\s*)[^\r\n\"']+"),
    ),
    # a password in an address
    (("://",), re.compile(r"(?P<keep>[a-z][a-z0-9+.-]*://[^\s/:@\"']*:)[^\s/@\"']+(?=@)")),
    # a JWT, anywhere
    (("eyj",), re.compile(r"(?P<keep>)\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?")),
    # an API key of ours
    (("clarion_", "clk_"), re.compile(r"(?P<keep>\b(?:clarion|clk)_)[A-Za-z0-9_-]{20,}")),
)
# Names that look like a secret's and are not.
_PUBLIC_NAMES = frozenset(
    {"idempotency_key", "collapse_key", "digest_key", "public_key", "key_id", "token_issuer"}
)


class Redactor:
    """Hides secrets in texts and in nested data; `known` are exact secrets to hide wherever they stand."""

    def __init__(self, known: tuple[str, ...] = ()) -> None:
        # Short texts would hide ordinary words; the longest first, as one secret may contain another.
        listed = sorted({secret for secret in known if len(secret) >= 8}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, listed))) if listed else None

    def text(self, text: str) -> str:
        """The text without its secrets."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        # Beyond ASCII letters have odd relatives that `(?i)` knows and `lower` does not.
        lowered = text.lower() if text.isascii() else None
        for words, shape in _SHAPES:
            if lowered is None or _holds(lowered, words):
                text = shape.sub(_SHOWN, text)
        return text

    def value(self, value: Any, depth: int = 0) -> Any:
        """Any value of a record without its secrets; nested further than 6 levels it is dropped."""
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if depth > 6:
            return "[too deep]"
        if isinstance(value, bytes):
            return self.text(value.decode("utf-8", "replace"))
        if isinstance(value, Mapping):
            return {str(name): self.named(str(name), item, depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item, depth + 1) for item in value]
        return self.text(repr(value))

    def named(self, name: str, value: Any, depth: int = 0) -> Any:
        """A value that stands under a name: hidden as a whole when the name says so."""
        if value is not None and _is_secret(name):
            return value if isinstance(value, bool | int) else HIDDEN
        return self.value(value, depth)

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        """The structlog processor. Fields of structlog's own pass, all else is looked at."""
        for name, value in event.items():
            if name not in ("exc_info", "_record", "_from_structlog", "stack_info"):
                event[name] = self.named(name, value)
        return event


def _holds(text: str, words: tuple[str, ...]) -> bool:
    for word in words:  # noqa: SIM110 - `any` with a generator takes three times as long
        if word in text:
            return True
    return False


@lru_cache(1_024)
def _is_secret(name: str) -> bool:
    return name.lower() not in _PUBLIC_NAMES and _SECRET_NAME.search(name) is not None


class _RedactingFormatter(structlog.stdlib.ProcessorFormatter):
    """The last look: the finished line, traceback included."""

    def __init__(self, redactor: Redactor, **options: Any) -> None:
        super().__init__(**options)
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.text(super().format(record))


def _add_request_id(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if request_id := current_request_id.get():
        event.setdefault("request_id", request_id)
    return event


def _add_role(role: str) -> Processor:
    def add(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("role", role)
        return event

    return add


def configure_logging(settings: Settings, role: str, stream: TextIO | None = None) -> None:
    """Send all records of this process to one stream (standard error). Call it again after secrets were generated.

    `role` is `node`, `generator`, …; give uvicorn `log_config=None`, so that it leaves its loggers to us.
    """
    stream = stream or sys.stderr
    is_text = settings.log_format == "text" or (settings.log_format is None and stream.isatty())
    redactor = Redactor(settings.secrets())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_request_id,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_role(role),
    ]
    final: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, redactor]
    if is_text:
        final.append(
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, sort_keys=False
            )
        )
    else:
        final += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]

    handler = logging.StreamHandler(stream)
    handler.setFormatter(_RedactingFormatter(redactor, processors=final, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "arq"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    if settings.log_level != "debug":
        for name in ("alembic", "httpx2"):  # each plugin that is set up, each request that is sent: no news
            logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose records carry fields: `log.info("batch stored", events=12)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
