"""`corewrite warm`: fill the shared cache with head queries in batch.

Exit status: 0 all is there, 1 something failed (run it again: what is there is skipped), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from app.errors import CorewriteError

if TYPE_CHECKING:
    from app.http.schemas import RewriteRequest
    from app.settings import Settings
    from app.warm.queries import Head
    from app.warm.worker import Outcome

_WORKERS = 2
_PROGRESS_S = 2.0


def add_warm(commands: Any) -> None:
    """Add the command to argparse's sub-parsers."""
    parser = commands.add_parser(
        "warm",
        help="fill the shared cache with head queries",
        description="Generate what is not in the cache at REWRITE_REDIS_URL yet and store it there, for all "
        "replicas. Give it the replicas' own settings: an entry is found only under those it was made with.",
    )
    parser.add_argument(
        "--queries",
        required=True,
        metavar="FILE",
        help='one query per line: text, or an object as POST /v1/rewrite takes it; "-" reads standard input',
    )
    parser.add_argument("--refresh", action="store_true", help="generate what is there already, too")
    parser.add_argument("--strict", action="store_true", help="do nothing where any line is not valid")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", dest="where", help="where to compute (local)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help=f"ray: engines, each its own ({_WORKERS})")
    parser.add_argument("--ray-address", metavar="A", help="ray: a running cluster (one for this call alone)")
    parser.add_argument(
        "--concurrency",
        type=int,
        metavar="N",
        help="queries at a time, per engine (REWRITE_BATCH_CONCURRENCY, 32)",
    )
    parser.add_argument("--checkpoint", help="checkpoint folder (REWRITE_CHECKPOINT, the one in the package)")
    parser.add_argument(
        "--threads",
        type=int,
        dest="engine_threads",
        help="threads of an engine (REWRITE_ENGINE_THREADS; local: every core, ray: 1)",
    )
    parser.set_defaults(run=_warm)


def _warm(arguments: argparse.Namespace) -> int:
    import logging  # noqa: PLC0415 -- after parsing

    from app.cli import settings_of  # noqa: PLC0415 -- after parsing

    _check(arguments)
    settings = settings_of(arguments)
    logging.basicConfig(level=logging.ERROR)
    head = _read(arguments.queries, strict=arguments.strict)
    tally: Counter[Outcome] = Counter()
    began_s = time.monotonic()
    try:
        _run(arguments, settings, head.requests, _Progress(tally, len(head.requests)))
    except (KeyboardInterrupt, CorewriteError):
        if done := tally.total():
            sys.stderr.write(f"warm: stopped after {done:,} of {len(head.requests):,}; run again to go on\n")
        raise
    summary = summarise(head, tally, time.monotonic() - began_s)
    _show(summary, as_json=arguments.json)
    return 1 if summary["failed"] else 0


def _check(arguments: argparse.Namespace) -> None:
    on_ray = arguments.where == "ray"
    if not on_ray and (arguments.workers is not None or arguments.ray_address is not None):
        raise CorewriteError("--workers and --ray-address are for --engine ray")
    for name in ("workers", "concurrency"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise CorewriteError(f"--{name} must be at least 1")


def _read(name: str, *, strict: bool) -> Head:
    from app.warm.queries import read_head  # noqa: PLC0415 -- after parsing

    def on_invalid(number: int, problem: str) -> None:
        sys.stderr.write(f"warm: line {number}: {problem}\n")

    try:
        if name == "-":
            head = read_head(sys.stdin.buffer, on_invalid=on_invalid)
        else:
            with open(name, "rb") as lines:  # noqa: PTH123 -- the path is what the user wrote
                head = read_head(lines, on_invalid=on_invalid)
    except OSError as error:
        raise CorewriteError(f"{name}: {error.strerror}") from error
    if strict and head.invalid:
        raise CorewriteError(f"{head.invalid} of {head.lines} lines are not valid, and --strict was given")
    return head


def _run(
    arguments: argparse.Namespace,
    settings: Settings,
    requests: tuple[RewriteRequest, ...],
    progress: _Progress,
) -> None:
    import asyncio  # noqa: PLC0415 -- after parsing

    from app.warm.worker import open_app, warmer_of  # noqa: PLC0415 -- after parsing

    concurrency = arguments.concurrency or settings.batch_concurrency

    async def here() -> None:
        app = await open_app(settings)
        async with app.router.lifespan_context(app):
            warmer = warmer_of(app, settings, refresh=arguments.refresh)
            await warmer.warm_all(requests, concurrency=concurrency, on_outcome=progress)

    async def check() -> None:
        app = await open_app(settings)
        await app.state.shared.close()

    if arguments.where == "local":
        asyncio.run(here())
        return
    asyncio.run(check())  # now, in a line, rather than from every actor
    from app.warm.on_ray import warm_on_ray  # noqa: PLC0415 -- after parsing

    if requests:
        warm_on_ray(
            requests,
            settings,
            refresh=arguments.refresh,
            workers=arguments.workers or _WORKERS,
            concurrency=concurrency,
            address=arguments.ray_address,
            on_outcome=progress,
        )


class _Progress:
    """Counts outcomes, and now and then says on standard error how far it is."""

    def __init__(self, tally: Counter[Outcome], total: int) -> None:
        self._tally = tally
        self._total = total
        self._began_s = self._told_s = time.monotonic()

    def __call__(self, outcome: Outcome) -> None:
        self._tally[outcome] += 1
        now_s = time.monotonic()
        if now_s - self._told_s >= _PROGRESS_S:
            self._told_s = now_s
            done = self._tally.total()
            rate = done / (now_s - self._began_s)
            sys.stderr.write(f"warm: {done:,} of {self._total:,}, {rate:.1f} queries/s\n")


def summarise(head: Head, tally: Counter[Outcome], seconds: float) -> dict[str, Any]:
    """The facts of a run: lines that were not blank, and what became of each distinct query."""

    def of_kind(kind: str) -> dict[str, int]:
        return {outcome.reason: count for outcome, count in sorted(tally.items()) if outcome.kind == kind}

    generated = of_kind("generated")
    return {
        "lines": head.lines,
        "invalid": head.invalid,
        "distinct": len(head.requests),
        "already_there": sum(of_kind("already_there").values()),
        "generated": sum(generated.values()),
        "without_rewrite": {reason: count for reason, count in generated.items() if reason},
        "too_long": sum(of_kind("too_long").values()),
        "failed": of_kind("failed"),
        "seconds": round(seconds, 3),
        "queries_per_s": round(tally.total() / seconds, 1) if seconds else 0.0,
    }


def _show(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        import json  # noqa: PLC0415 -- after parsing

        sys.stdout.write(json.dumps(summary) + "\n")
        return
    for name, value in summary.items():
        shown = (
            ", ".join(f"{reason} {count:,}" for reason, count in value.items()) or "0"
            if isinstance(value, dict)
            else f"{value:,}"
        )
        sys.stdout.write(f"{name.replace('_', ' '):<16} {shown}\n")
