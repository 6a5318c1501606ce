"""Delivering a checkpoint to traffic: who gets it, what came of it, and whether it goes on."""

from __future__ import annotations

from pathlib import Path

LAUNCH = Path(__file__).with_name("launch.toml")
"""The plan of a rollout for which no other is named."""
