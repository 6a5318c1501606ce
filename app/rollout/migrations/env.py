"""What alembic runs: the missing steps, over the connection that `app.rollout.schema` hands in."""

from __future__ import annotations

from alembic import context

from app.rollout.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
