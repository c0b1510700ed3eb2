"""What a database and its drivers raise, in the product's words; and which transactions may run again.

A lost or unusable database is `StoreUnavailable`, a value that no database can hold is `Refused`. What is neither is a
mistake of ours and passes as it is. A sentence holds the first line of what the driver said, not the statement.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Final

import asyncpg
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from hub.errors import Refused, StoreUnavailable

RETRIED_STATES: Final = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
# connection, resources, shutdown, read-only standby, system
AWAY_STATES: Final = ("08", "53", "57P", "25006", "58")
LOCK_NOT_AVAILABLE: Final = "55P03"
DRIVERS_STATE: Final = "22000"  # asyncpg's own refusal
UNSTORABLE_STATES: Final = ("22021", DRIVERS_STATE)  # character_not_in_repertoire
_UNUSABLE: Final = (OperationalError, DatabaseError, sqlite3.OperationalError, sqlite3.DatabaseError)


class LockTimeout(StoreUnavailable):
    """A row was locked for longer than this transaction would wait."""


def _sqlstate(error: BaseException) -> str:
    original = getattr(error, "orig", None) or error
    return str(getattr(original, "sqlstate", None) or "")


def may_run_again(error: BaseException) -> bool:
    """Whether the same transaction may pass when it is run once more."""
    return _sqlstate(error) in RETRIED_STATES or _day_began(error)


def _day_began(error: BaseException) -> bool:
    """A row of the log was on its way to the default partition when its day got one of its own."""
    return _sqlstate(error) == "23514" and "log_part_default" in str(getattr(error, "orig", None))


def refused_by_driver(error: BaseException) -> bool:
    """Whether a value did not even get to the server."""
    return isinstance(error, UnicodeEncodeError | OverflowError) or _sqlstate(error) == DRIVERS_STATE


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn a lost or unusable database into `StoreUnavailable`, and a value that no database can hold (a NUL, half a
    surrogate pair, a huge number) into `Refused`; mistakes of ours pass as they are."""
    try:
        yield
    except StoreUnavailable:
        raise
    except (DBAPIError, asyncpg.PostgresError, sqlite3.Error) as error:
        state = _sqlstate(error)
        if state in UNSTORABLE_STATES:
            raise _unstorable() from error
        if state in RETRIED_STATES:
            raise StoreUnavailable(
                "The database was too busy: a transaction failed again and again."
            ) from error
        if state == LOCK_NOT_AVAILABLE:
            raise LockTimeout("The database was too busy: a row stayed locked for too long.") from error
        lost = getattr(error, "connection_invalidated", False) or isinstance(error, InterfaceError)
        # SQLite's own: locked, full, unreadable (operational); damaged or no database at all (DatabaseError itself).
        on_sqlite = type(error) in _UNUSABLE and not state
        away = state.startswith(AWAY_STATES) or isinstance(error, asyncpg.PostgresError)
        if lost or on_sqlite or away:
            raise StoreUnavailable(f"The database cannot be used: {_sentence(error)}") from error
        raise
    except (UnicodeEncodeError, OverflowError) as error:
        raise _unstorable() from error
    except (OSError, PoolTimeout, TimeoutError, asyncpg.InterfaceError) as error:
        raise StoreUnavailable(f"The database cannot be reached: {_sentence(error)}") from error


def _unstorable() -> Refused:
    return Refused(
        422, "invalid_value", "A value holds what cannot be stored: a NUL, or a number beyond 64 bits."
    )


def _sentence(error: BaseException) -> str:
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
