"""The kinds of columns that migrations are made of. What they mean never changes: old migrations use them."""

from typing import Any

import sqlalchemy as sa


def name(column: str, null: bool = False) -> sa.Column[Any]:
    return sa.Column(column, sa.String().with_variant(sa.String(collation="C"), "postgresql"), nullable=null)


def text(column: str, null: bool = False) -> sa.Column[Any]:
    return sa.Column(column, sa.Text(), nullable=null)


def big(column: str, null: bool = False) -> sa.Column[Any]:
    return sa.Column(column, sa.BigInteger(), nullable=null, autoincrement=False)


def small(column: str, null: bool = False) -> sa.Column[Any]:
    return sa.Column(column, sa.Integer(), nullable=null, autoincrement=False)


def rowid(column: str) -> sa.Column[Any]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(column, kind, nullable=False, autoincrement=False)


def flag(column: str) -> sa.Column[Any]:
    return sa.Column(column, sa.Boolean(), nullable=False)


def raw(column: str, null: bool = False) -> sa.Column[Any]:
    return sa.Column(column, sa.LargeBinary(), nullable=null)


def where(postgresql: str, sqlite: str | None = None) -> dict[str, Any]:
    return {"postgresql_where": sa.text(postgresql), "sqlite_where": sa.text(sqlite or postgresql)}
