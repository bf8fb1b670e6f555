"""Alembic's entry: one connection, handed over by ``upgrade``, one transaction for all steps."""

from alembic import context

from clinic_ai.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
