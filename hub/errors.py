"""The exception tree of the product.

ClarionError                 one sentence for a person; never shown with a traceback
├── ConfigError              a setting that cannot be used; stops the start
├── DefinitionError          a type or category (or a folder of them) that cannot be used
├── Refused                  a request that is answered with a problem document (RFC 9457)
├── TokenError               a user token that is not accepted
│   └── TokenExpired         … because its time is over
├── TemplateError            a template that does not compile, or does not render within its bounds
├── LeaseLost                somebody else owns the partition now; the batch was rolled back
├── QueueUnavailable         the event queue did not confirm; the outcome may be unknown
├── BusUnavailable           the live bus cannot be reached
└── StoreUnavailable         the database cannot be reached or is the wrong one
    └── SchemaMismatch       … its schema is too old or too new for this program
"""

from dataclasses import dataclass, field


class ClarionError(Exception):
    """Base of all errors that the product raises on purpose; `str()` is a sentence for people."""


class ConfigError(ClarionError):
    """A setting has a value that cannot work."""


class DefinitionError(ClarionError):
    """A type or category definition cannot be used."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong place in a request: an RFC 6901 pointer, a code and a sentence."""

    pointer: str
    code: str
    detail: str


@dataclass(eq=False)
class Refused(ClarionError):
    """A request that the product refuses, as it is told to the caller (RFC 9457)."""

    status: int
    code: str
    detail: str
    errors: list[FieldError] = field(default_factory=list)
    retry_after_seconds: int | None = None

    def __str__(self) -> str:
        return self.detail


class TokenError(ClarionError):
    """A user token is malformed, badly signed, for somebody else, or revoked."""


class TokenExpired(TokenError):
    """A user token was good once; its `exp` lies in the past."""


class TemplateError(ClarionError):
    """A template does not compile, or does not render within its bounds."""


class LeaseLost(ClarionError):
    """The fence of a lease has moved on: nothing of the batch was stored."""


class QueueUnavailable(ClarionError):
    """The event queue did not confirm an append or a read."""


class BusUnavailable(ClarionError):
    """The live bus cannot be reached."""


class StoreUnavailable(ClarionError):
    """The database cannot be used."""


class SchemaMismatch(StoreUnavailable):
    """The database's schema is too old or too new for this program."""
