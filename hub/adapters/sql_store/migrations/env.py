"""Runs migrations in the transaction of the connection that `hub.adapters.sql_store.schema` hands over."""

from alembic import context

from hub.adapters.sql_store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    compare_type=True,
    include_object=lambda _object, name, kind, _reflected, _other: (
        not (kind == "table" and "_part_" in (name or ""))
    ),
)
with context.begin_transaction():
    context.run_migrations()
