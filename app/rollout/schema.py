"""The tables brought up to this version, by whoever comes first. It blocks."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from app.errors import StoreError
from app.rollout.database import Database

_LOCK = 0x636F7265
"""Of PostgreSQL, for as long as somebody migrates."""


def upgrade(database: Database) -> None:
    """Make what is missing.

    Raises:
        StoreError: the database is out of reach, or has tables of a later version.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with database.begin() as connection:
        # Whoever else comes waits here, and then finds nothing to do.
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        there = MigrationContext.configure(connection).get_current_revision()
        if there is not None and there not in known:
            raise StoreError(
                f"the store of rollouts is of version {there}, which this one does not know: update corewrite"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def revision(database: Database) -> str | None:
    """Return the version of the tables; None: there are none. Raises StoreError."""
    with database.begin() as connection:
        return MigrationContext.configure(connection).get_current_revision()
