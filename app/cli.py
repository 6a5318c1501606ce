"""corewrite: the command line.

`serve` and `rewrite` live here. Other commands come from entry points of the group "corewrite.commands": a
function that is given argparse's sub-parsers, adds the command named like its entry point, and sets `run` to
a function of the parsed arguments that returns an exit status. They are imported only when named (or when
all are listed), and every heavy import waits until after parsing, so that `--help` is instant.

Exit status: 0 done, 1 an unexpected failure, 2 wrong usage or an error that the message explains.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from app.errors import CorewriteError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.engines.base import Engine
    from app.registry.served import ServedCheckpoint
    from app.settings import Settings

COMMANDS_GROUP = "corewrite.commands"
# A person waits at a terminal, where a search page does not; cold caches included.
_PATIENCE_MS = 10_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        parsed = parse(list(sys.argv[1:] if argv is None else argv))
        return int(parsed.run(parsed) or 0)
    except CorewriteError as error:
        sys.stderr.write(f"corewrite: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def parse(arguments: list[str]) -> argparse.Namespace:
    """The parsed arguments; `run` among them is what to call with them."""
    return _parser(arguments[0] if arguments else None).parse_args(arguments)


def _parser(command: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="corewrite", description="Query rewriting that can only help.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    built_in: dict[str, Callable[[Any], None]] = {"serve": _add_serve, "rewrite": _add_rewrite}
    for add in built_in.values():
        add(commands)
    if command not in built_in:
        _add_entry_points(commands, command)
    return parser


def _add_entry_points(commands: Any, command: str | None) -> None:
    """Add the command named, or all of them where none is (`corewrite --help`, a typing error)."""
    from importlib.metadata import entry_points  # noqa: PLC0415 -- reads every installed distribution

    found = entry_points(group=COMMANDS_GROUP)
    named = [point for point in found if point.name == command]
    for point in named or found:
        try:
            add = point.load()
        except ImportError as error:
            if named:
                raise CorewriteError(f"{point.name}: {error} (is its extra installed?)") from error
            continue
        add(commands)


def _add_serve(commands: Any) -> None:
    parser = commands.add_parser(
        "serve",
        help="answer over HTTP",
        description="Answer over HTTP. Each option overrides its environment variable; see docs/settings.md.",
    )
    parser.add_argument("--host", help="address to listen on (REWRITE_HOST, 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (REWRITE_PORT, 8080)")
    _add_common(parser)
    parser.set_defaults(run=_serve)


def _add_rewrite(commands: Any) -> None:
    parser = commands.add_parser(
        "rewrite",
        help="rewrite one query here",
        description="Rewrite one query, on the request path of the service, without HTTP.",
    )
    parser.add_argument("query", metavar="QUERY")
    parser.add_argument("--item-title", metavar="T", help="title of the item looked at last")
    parser.add_argument("--item-text", metavar="X", help="what describes that item")
    parser.add_argument(
        "--previous", metavar="Q", action="append", default=[], help="an earlier query; repeat, oldest first"
    )
    parser.add_argument("--locale", help="language tag, such as en-GB")
    parser.add_argument("--num-rewrites", type=int, default=1, metavar="N", help="at most so many, 1 to 4")
    parser.add_argument("--json", action="store_true", help="print the answer as the service would send it")
    _add_common(parser)
    parser.set_defaults(run=_rewrite)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", help="checkpoint folder (REWRITE_CHECKPOINT, the one in the package)")
    parser.add_argument(
        "--deadline-ms", type=int, help="milliseconds one rewrite may take (REWRITE_DEADLINE_MS)"
    )
    parser.add_argument(
        "--min-confidence", type=float, help="withhold below it, 0..1 (REWRITE_MIN_CONFIDENCE)"
    )
    parser.add_argument("--threads", type=int, dest="engine_threads", help="REWRITE_ENGINE_THREADS")
    parser.add_argument("--log-level", help="debug, info, warning, error (REWRITE_LOG_LEVEL, info)")


def settings_of(arguments: argparse.Namespace, **defaults: object) -> Settings:
    """Settings with the given options on top; options that were not given leave the environment's say."""
    from pydantic import ValidationError  # noqa: PLC0415 -- after parsing
    from pydantic_settings import SettingsError  # noqa: PLC0415 -- as above

    from app.settings import Settings  # noqa: PLC0415 -- after parsing

    given = {
        name: value
        for name, value in vars(arguments).items()
        if name in Settings.model_fields and value is not None
    }
    try:
        return Settings(**{**defaults, **given})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in problem["loc"])
        raise CorewriteError(f"setting {name or 'combination'}: {problem['msg']}") from None
    except SettingsError as error:  # what should be JSON and is not; it names the field
        raise CorewriteError(f"setting: {error}") from None


def _serve(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    from app.http.server import run_server  # noqa: PLC0415 -- after parsing
    from app.logs import configure_logging  # noqa: PLC0415 -- after parsing
    from app.main import create_app  # noqa: PLC0415 -- after parsing

    configure_logging(settings.log_level, messages=settings.log_queries)
    run_server(create_app(settings), settings)
    return 0


def _rewrite(arguments: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 -- after parsing
    import logging  # noqa: PLC0415 -- after parsing

    patience = {} if "REWRITE_DEADLINE_MS" in os.environ else {"deadline_ms": _PATIENCE_MS}
    settings = settings_of(arguments, **patience, relevance="none")  # which no rewrite needs
    logging.basicConfig(level=logging.ERROR)
    answer = asyncio.run(rewrite_once(settings, arguments))
    if arguments.json:
        import json  # noqa: PLC0415 -- after parsing

        sys.stdout.write(json.dumps(answer, ensure_ascii=False, indent=2) + "\n")
    else:
        show(answer)
    return 0


async def rewrite_once(
    settings: Settings,
    arguments: argparse.Namespace,
    *,
    engine: Engine | None = None,
    checkpoint: ServedCheckpoint | None = None,
) -> dict[str, Any]:
    """The wire answer to the query in `arguments`; it is checked as one that comes over HTTP."""
    import json  # noqa: PLC0415 -- after parsing
    import time  # noqa: PLC0415 -- after parsing

    from app.http.body import parse_rewrite  # noqa: PLC0415 -- after parsing
    from app.http.schemas import wire_answer  # noqa: PLC0415 -- after parsing
    from app.main import create_app  # noqa: PLC0415 -- after parsing
    from app.rewrite.deadline import deadline_of  # noqa: PLC0415 -- after parsing

    query = parse_rewrite(json.dumps(_request(arguments)).encode()).to_query()
    app = create_app(settings, engine=engine, checkpoint=checkpoint)
    async with app.router.lifespan_context(app):
        deadline = deadline_of(
            time.monotonic(), body_ms=None, header_ms=None, default_ms=settings.deadline_ms
        )
        return wire_answer(await app.state.service.rewrite(query, deadline))


def show(answer: dict[str, Any]) -> None:
    """Write the original, then each rewrite, for a reader."""
    lines = [answer["original"]]
    lines += [
        f"  {rewrite['rank']}  {rewrite['text']}    confidence {rewrite['confidence']:.2f}"
        f"  logprob {rewrite['logprob']:.2f}"
        for rewrite in answer["rewrites"]
    ]
    if answer["reason"]:
        lines.append(f"  no rewrite: {answer['reason']}")
    sys.stdout.write("\n".join(lines) + "\n")


def _request(arguments: argparse.Namespace) -> dict[str, object]:
    """The wire request that the options stand for."""
    context: dict[str, object] = {"previous_queries": arguments.previous}
    if arguments.item_title is not None:
        context["last_item"] = {"title": arguments.item_title, "text": arguments.item_text or ""}
    elif arguments.item_text is not None:
        raise CorewriteError("--item-text describes an item: give --item-title too")
    request = {"query": arguments.query, "context": context, "num_rewrites": arguments.num_rewrites}
    return request if arguments.locale is None else {**request, "locale": arguments.locale}


if __name__ == "__main__":
    sys.exit(main())
