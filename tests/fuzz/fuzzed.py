"""The service that is fuzzed, as a process: fake engine and relevance with failures; the rest is real."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes import FakeCheckpoint, FakeEngine, FakeRelevance, suffixes

from app.engines.base import Completion
from app.errors import EngineFailedError
from app.http.server import run_server
from app.logs import configure_logging
from app.main import create_app
from app.settings import Settings


class Forgetful(list[Any]):
    """Keeps nothing: a million requests are too many to remember."""

    def append(self, one: object) -> None:
        """Let go of it."""


def completions(query: str) -> list[Completion]:
    """Of one query in eight: none, for the engine fails."""
    if len(query) % 8 == 7:
        raise EngineFailedError("as it was asked to")
    return suffixes(query)


if __name__ == "__main__":
    settings = Settings()
    app = create_app(
        settings,
        engine=FakeEngine(completions, asked=Forgetful()),
        checkpoint=FakeCheckpoint(),
        relevance=FakeRelevance(asked=Forgetful()),
    )
    if sys.argv[1:] == ["--document"]:
        sys.stdout.write(json.dumps(app.openapi()))
        sys.exit()
    configure_logging(settings.log_level, messages=True)
    run_server(app, settings)
