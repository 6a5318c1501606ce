"""`corewrite serve` with an engine that crashes on demand: `python -m training.canary.crashing FILE`.

While FILE names a checkpoint by its digest, the thread that computes for it dies whenever it is asked, and
again after each restart. All else is as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from app.cli import main
from app.engines import embedded
from app.engines.batch import Backend
from app.engines.scores import Scores


class Crash(BaseException):
    """Not an Exception: nothing that handles failures of a request may handle this."""


class Crashing:
    """A backend that is another one, or dies."""

    def __init__(self, backend: Backend, digest: str, file: Path) -> None:
        self._backend, self._digest, self._file = backend, digest, file
        self.decode, self.copy = backend.decode, backend.copy

    def prefill(self, first_slot: int, prompts: Sequence[Sequence[int]]) -> Scores:
        """See `app.engines.batch.Backend`."""
        if self._file.exists() and self._file.read_text(encoding="ascii").strip() == self._digest:
            raise Crash("on demand")
        return self._backend.prefill(first_slot, prompts)


class CrashingEngine(embedded.EmbeddedEngine):
    """An embedded engine with such a backend."""

    file: Path

    def _onnx_backend(self) -> Backend:
        return Crashing(super()._onnx_backend(), self._dir.name, self.file)


if __name__ == "__main__":
    CrashingEngine.file = Path(sys.argv[1])
    vars(embedded)["EmbeddedEngine"] = CrashingEngine  # what the service makes from now on
    sys.exit(main(["serve"]))
