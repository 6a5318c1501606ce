"""What serving needs of a checkpoint, wherever it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from app.contracts.confidence import Calibrated
    from app.contracts.manifest import GoldenPrompt


class ServedCheckpoint(Protocol):
    """What the request path needs of a checkpoint."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def weights_digest(self) -> str:
        """SHA-256 (hex) over its weights."""

    @property
    def calibration(self) -> Calibrated:
        """How to read confidence from its log-probabilities."""

    @property
    def path(self) -> Path:
        """Its folder."""

    @property
    def model_digest(self) -> str:
        """SHA-256 (hex) over what its tokens are a function of."""

    def verify(self) -> None:
        """Read all its files again; raises CheckpointError unless they are the manifest's. It blocks."""

    @property
    def golden(self) -> Sequence[GoldenPrompt]:
        """Prompts, and the tokens its trainer saw for them."""
