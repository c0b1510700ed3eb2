"""The Store on SQL: SQLite (one machine, or in memory for tests) and PostgreSQL, through one set of statements."""

from hub.adapters.sql_store.store import SqlStore, memory_store, migrate

__all__ = ["SqlStore", "memory_store", "migrate"]
