"""What the tables are made of: their MetaData and the few kinds of columns.

Moments are whole microseconds in BIGINT, documents are JSON texts. On PostgreSQL names sort by bytes (collation C), as
they do in SQLite and Python.
"""

from typing import Any, ClassVar, Final

from sqlalchemy import BigInteger, Boolean, Integer, MetaData, Sequence, String, Text, false, text
from sqlmodel import Field, SQLModel

Name: Final = String().with_variant(String(collation="C"), "postgresql")
RowId: Final = BigInteger().with_variant(Integer(), "sqlite")
LOG_IDS: Final = Sequence("log_ids")


class Table(SQLModel):
    """Base of all tables of the store."""

    metadata: ClassVar[MetaData] = MetaData()


def where(postgresql: str, sqlite: str | None = None) -> dict[str, Any]:
    """The condition of a partial index, for each database."""
    return {"postgresql_where": text(postgresql), "sqlite_where": text(sqlite or postgresql)}


def key(**more: Any) -> Any:
    """A text of the primary key."""
    return Field(primary_key=True, sa_type=Name, **more)


def number(sa_type: Any = BigInteger, **more: Any) -> Any:
    """A number of the primary key."""
    # The database never makes one up: numbers come from the lane's owner, the log's sequence or the clock.
    return Field(primary_key=True, sa_type=sa_type, sa_column_kwargs={"autoincrement": False}, **more)


def word(**more: Any) -> Any:
    """An id, a state or another short text that is compared."""
    return Field(sa_type=Name, **more)


def moment(**more: Any) -> Any:
    """A moment, or another large number."""
    return Field(sa_type=BigInteger, **more)


def counter(**more: Any) -> Any:
    """A small number that starts at 0, also in rows that an older program writes."""
    return Field(default=0, sa_type=Integer, sa_column_kwargs={"server_default": text("0")}, **more)


def flag_off(**more: Any) -> Any:
    """A flag that is off, also in rows that an older program writes."""
    return Field(default=False, sa_type=Boolean, sa_column_kwargs={"server_default": false()}, **more)


def document(**more: Any) -> Any:
    """A text that is only kept."""
    return Field(sa_type=Text, **more)


IN_PARTITIONS: Final = {"postgresql_partition_by": "HASH (user_id)"}
