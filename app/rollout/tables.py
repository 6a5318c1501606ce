"""The tables of the rollout store. `migrations/` makes them; a test holds the two together.

Moments are seconds since 1970, UTC: what two databases agree on.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Double, ForeignKey, Integer, MetaData, String, Table, Text

from app.rollout.evidence import MEASURES

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

ROLLOUTS = Table(
    "rollouts",
    METADATA,
    # Dealt one after the other by whoever starts: of two at once, one has no number.
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("id", String(64), nullable=False, unique=True),
    Column("checkpoint", String(64), nullable=False),
    Column("plan", Text, nullable=False),
)

TRANSITIONS = Table(
    "transitions",
    METADATA,
    Column("rollout", Integer, ForeignKey(ROLLOUTS.c.number), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("who", String(200), nullable=False),
    Column("order", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("step", Integer, nullable=False),
    Column("why", Text, nullable=False),
)

COUNTS = Table(
    "counts",
    METADATA,
    # Rollout 0 is none: what was counted before the rollout after `step`, which CUPED reads.
    Column("rollout", Integer, primary_key=True, autoincrement=False),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("impacted", Boolean, primary_key=True),
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    *(Column(name, Double, nullable=False, server_default="0") for name in MEASURES),
    Column("counted_at", Double, nullable=False),
)

EVENTS = Table(
    "events",
    METADATA,
    Column("id", String(128), primary_key=True),
    Column("at", Double, nullable=False, index=True),
)

SWITCHES = Table(
    "switches",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("who", String(200), nullable=False),
    Column("killed", Boolean, nullable=False),
    Column("why", Text, nullable=False),
)

REPLICAS = Table(
    "replicas",
    METADATA,
    Column("id", String(128), primary_key=True),
    Column("seen_at", Double, nullable=False),
    # The checkpoint that it could give to the canary's clients.
    Column("loaded", String(64), nullable=True),
)

LEASES = Table(
    "leases",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("holder", String(128), nullable=False),
    Column("until", Double, nullable=False),
)

LOOKS = Table(
    "looks",
    METADATA,
    # What a controller saw when it looked. Evidence grows with the canary's searches, so they number it.
    Column("rollout", Integer, ForeignKey(ROLLOUTS.c.number), primary_key=True, autoincrement=False),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("searches", Double, primary_key=True),
    Column("at", Double, nullable=False),
    Column("action", String(16), nullable=False),
    Column("why", Text, nullable=False),
    Column("findings", Text, nullable=False),
)
