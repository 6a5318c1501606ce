"""`corewrite checkpoints activate ID`: ask a running server for another one; the rest is `registry`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from app.commands.registry import add_registry_actions
from app.errors import CorewriteError

if TYPE_CHECKING:
    import argparse

# Longer than REWRITE_ACTIVATION_TIMEOUT_S: the server should be the one to give up, for it says why.
_TIMEOUT_S = 600.0
_TOKEN = "REWRITE_ADMIN_TOKEN"  # noqa: S105 -- the variable's name


def add_checkpoints(commands: Any) -> None:
    """Add `checkpoints` and what it can do."""
    parser = commands.add_parser("checkpoints", help="the registry, and activating one on a running server")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    add_registry_actions(actions)
    activate = actions.add_parser(
        "activate",
        help="prove a checkpoint and let it serve",
        description=(
            "Load a checkpoint on a running server, prove it by file digests and golden prompts, and let it "
            f"serve, until the server is restarted. The token is read from {_TOKEN}. Exit status 2 where "
            "it was refused: the one before serves on, and the message says why."
        ),
    )
    activate.add_argument("id", metavar="ID", help="the checkpoint's id: its folder in REWRITE_CHECKPOINTS")
    activate.add_argument("--url", default="http://127.0.0.1:8080", help="the server (%(default)s)")
    activate.add_argument(
        "--mechanism",
        choices=("beside", "in_place"),
        default="beside",
        help="into an engine of its own, or into the one that is there (%(default)s)",
    )
    activate.add_argument("--json", action="store_true", help="print the answer as the server sent it")
    activate.set_defaults(run=_activate)


def _activate(arguments: argparse.Namespace) -> int:
    import json  # noqa: PLC0415 -- after parsing

    answer = _post(
        arguments.url.rstrip("/") + "/admin/checkpoints/activate",
        {"id": arguments.id, "mechanism": arguments.mechanism},
    )
    if arguments.json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    elif answer["outcome"] == "already_active":
        sys.stdout.write(f"{answer['checkpoint_id']} serves already\n")
    else:
        if answer["fell_back"]:
            sys.stdout.write(f"not in place: {answer['fell_back']}\n")
        sys.stdout.write(
            f"{answer['checkpoint_id']} serves ({answer['mechanism']}) after {answer['switched_s']:.2f} s; "
            f"{answer['golden']} golden prompts proven\n"
        )
    return 0


def _post(url: str, body: dict[str, str]) -> dict[str, Any]:
    import json  # noqa: PLC0415 -- after parsing
    from urllib.error import HTTPError, URLError  # noqa: PLC0415 -- after parsing
    from urllib.request import Request, urlopen  # noqa: PLC0415 -- after parsing

    if not url.startswith(("http://", "https://")):
        raise CorewriteError(f"--url {url}: must begin with http:// or https://")
    headers = {"content-type": "application/json", "authorization": f"Bearer {os.environ.get(_TOKEN, '')}"}
    request = Request(url, json.dumps(body).encode(), headers)  # noqa: S310 -- checked above
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310 -- as above
            answer: dict[str, Any] = json.loads(response.read())
            return answer
    except HTTPError as error:
        raise CorewriteError(_detail(error.read()) or f"{url}: status {error.code}") from None
    except (URLError, TimeoutError, ValueError) as error:
        raise CorewriteError(f"{url}: {error}") from None


def _detail(body: bytes) -> str:
    import json  # noqa: PLC0415 -- after parsing

    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return ""
