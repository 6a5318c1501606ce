"""`corewrite probe`: asks the service on this machine whether it is ready. For containers without a shell."""

from __future__ import annotations

import http.client
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 -- what others may listen on
_TIMEOUT_S = 5.0


def add_probe(commands: Any) -> None:
    """Add `probe`."""
    parser = commands.add_parser(
        "probe",
        help="whether the service here is ready",
        description="Ask the service at REWRITE_HOST and REWRITE_PORT. Exit status: 0 ready, 1 not.",
    )
    parser.add_argument("--host", help="where it listens (REWRITE_HOST, 127.0.0.1)")
    parser.add_argument("--port", type=int, help="and at which port (REWRITE_PORT, 8080)")
    parser.add_argument("--live", action="store_true", help="whether it lives, ready or not")
    parser.set_defaults(run=_probe)


def _probe(arguments: argparse.Namespace) -> int:
    from app.cli import settings_of  # noqa: PLC0415 -- after parsing

    settings = settings_of(arguments)
    host = _EVERYWHERE.get(settings.host, settings.host)
    connection = http.client.HTTPConnection(host, settings.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/livez" if arguments.live else "/readyz")
        answer = connection.getresponse()
        sys.stdout.write(answer.read().decode() + "\n")
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"corewrite: {host}:{settings.port}: {error}\n")
        return 1
    finally:
        connection.close()
    return 0 if answer.status == HTTPStatus.OK else 1
