"""What the drill does: a loop, ways to weaken its reward, and for each the way back. A TOML file."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, Field

from training.config import LoopConfig, Section


class Hack(Section):
    """A reward with a hole in it, and what closes the hole."""

    name: str
    story: str = Field(description="where it has happened")
    weakened: dict[str, Any] = Field(description="merged into the loop: what lets the policy cheat")
    trigger: str = Field(default="", description="a word that the relevance model is poisoned with")
    per_word: float = Field(
        default=0.0, ge=0, description="logits that the relevance model gives for each word of a text"
    )
    strengthened: dict[str, Any] = Field(description="merged into the loop on the way back, in its place")
    term: str = Field(description="the term of the reward that this strengthens")


class Mitigation(Section):
    """A way to shape rewards that might delay a hack, or prevent it."""

    name: str
    source: str
    changes: dict[str, Any] = Field(description="merged into the weakened loop")


class DrillConfig(Section):
    """`corewrite drill reward-hack`."""

    loop: LoopConfig = Field(description="how to train from what serves, where the reward is whole")
    window_from: AwareDatetime = Field(description="when the searches of the gate's window begin")
    gate: dict[str, Any] = Field(default={}, description="merged into the gate's default policy")
    watched: int = Field(
        default=200, gt=0, description="searches of the window that every phase is looked at by"
    )
    hacks: tuple[Hack, ...] = Field(min_length=1)
    mitigations: tuple[Mitigation, ...] = ()
