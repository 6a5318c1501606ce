"""The service over a slow fake engine, as a process; settings come from the environment."""

from __future__ import annotations

from fakes import FakeCheckpoint, FakeEngine

from app.http.server import run_server
from app.logs import configure_logging
from app.main import create_app
from app.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    configure_logging(settings.log_level, messages=False)
    run_server(create_app(settings, engine=FakeEngine(delay_s=0.6), checkpoint=FakeCheckpoint()), settings)
