"""Alembic's entry: runs the migrations on the connection that `webhook_app.outbox.schema` hands in."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transaction_per_migration=True)
context.run_migrations()
