"""What controllers have seen, as it grew."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision = "r0001"


def upgrade() -> None:
    """Make its table."""
    op.create_table(
        "looks",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("step", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("searches", sa.Double(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("findings", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "step", "searches", name="pk_looks"),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.number"], name="fk_looks_rollout"),
    )
