"""`corewrite control`: decides on rollouts, and serves nothing.

Where replicas may only read the registry and many come and go, one or two of these decide in their place
(REWRITE_ROLLOUT_CONTROLLER=false there); of several, one does at a time. It ends on SIGTERM.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def add_control(commands: Any) -> None:
    """Add `control`."""
    parser = commands.add_parser(
        "control",
        help="decide on rollouts, without serving",
        description="Decide on the rollouts of REWRITE_ROLLOUTS, every REWRITE_ROLLOUT_DECIDE_S seconds "
        "until SIGTERM. /metrics is at REWRITE_HOST and REWRITE_PORT.",
    )
    parser.add_argument("--host", help="address to listen on (REWRITE_HOST, 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (REWRITE_PORT, 8080)")
    parser.set_defaults(run=_control)


def _control(arguments: argparse.Namespace) -> int:
    from prometheus_client import (  # noqa: PLC0415 -- after parsing
        CollectorRegistry,
        ProcessCollector,
        start_http_server,
    )

    from app.cli import settings_of  # noqa: PLC0415 -- as above
    from app.logs import configure_logging  # noqa: PLC0415 -- as above
    from app.rollout.choice import make_controller, open_store, process_name  # noqa: PLC0415 -- as above
    from app.rollout.controller import decide_and_tell  # noqa: PLC0415 -- as above
    from app.telemetry import LOGGER, Metrics  # noqa: PLC0415 -- as above

    settings = settings_of(arguments)
    configure_logging(settings.log_level, messages=settings.log_queries)
    stop, decisions = threading.Event(), Metrics().decisions
    # Its own alone: what serves is not here, and zeros of it would say that it is broken.
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(decisions)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    database = open_store(settings)
    controller = make_controller(settings, database, process_name())
    server, thread = start_http_server(settings.port, settings.host, registry)
    LOGGER.info("deciding on rollouts")
    try:
        while not stop.wait(settings.rollout_decide_s):
            decide_and_tell(controller, lambda result: decisions.labels(result).inc())
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        database.close()
    return 0
