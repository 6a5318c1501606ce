"""`corewrite rollout start | status | pause | resume | promote | rollback | history | kill`: at the store."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.rollout import LAUNCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.rollout.orders import Orders


_HELP = {
    "pause": "keep the canary's share as it is; harm still goes back",
    "resume": "go on after a pause",
    "promote": "give it to everybody now, whatever the statistics say",
    "rollback": "give everybody stable again, now",
}


def add_rollout(commands: Any) -> None:
    """Add `rollout` and what it can do."""
    parser = commands.add_parser("rollout", help="bring a checkpoint to everybody step by step, or back")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    start = _add(actions, "start", _start, "give a checkpoint of the registry to a first share of clients")
    start.add_argument("checkpoint", metavar="REF", help="alias, address (or 8 characters of it), or id")
    start.add_argument(
        "--plan",
        type=Path,
        default=LAUNCH,
        metavar="FILE",
        help="steps, goal, guardrails (%(default)s)",
    )
    start.add_argument("--name", help="of the rollout, never used before (default: time and address)")
    start.add_argument("--ungated", action="store_true", help="though the gate has not said PASS")
    _why(start)
    _add(actions, "status", _status, "what is deployed, and what is known of it")
    for word, text in _HELP.items():
        _why(_add(actions, word, _order, text))
    _add(actions, "history", _history, "every transition of every rollout, and of the kill switch")
    kill = _add(actions, "kill", _kill, "give everybody the original, now")
    kill.add_argument("--off", action="store_true", help="stop doing so")
    _why(kill)


def _add(actions: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=text, description=f"{text.capitalize()}. The store is that of REWRITE_ROLLOUTS."
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.set_defaults(run=run, word=name)
    return parser


def _why(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--why", required=True, help="for the audit trail")
    parser.add_argument("--who", help="for the audit trail (default: the user and machine)")


def _start(arguments: argparse.Namespace) -> int:
    from app.errors import PlanError  # noqa: PLC0415 -- after parsing

    try:
        plan = arguments.plan.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"--plan {arguments.plan}: {error}") from error
    with _orders() as orders:
        told = orders.start(
            arguments.checkpoint,
            plan,
            name=arguments.name,
            ungated=arguments.ungated,
            who=_who(arguments),
            why=arguments.why,
        )
    return _tell(arguments, told)


def _status(arguments: argparse.Namespace) -> int:
    with _orders() as orders:
        return _tell(arguments, orders.status())


def _order(arguments: argparse.Namespace) -> int:
    with _orders() as orders:
        return _tell(arguments, orders.order(arguments.word, who=_who(arguments), why=arguments.why))


def _kill(arguments: argparse.Namespace) -> int:
    with _orders() as orders:
        return _tell(arguments, orders.kill(on=not arguments.off, who=_who(arguments), why=arguments.why))


def _history(arguments: argparse.Namespace) -> int:
    with _orders() as orders:
        history = orders.history()
    for line in history:
        if arguments.json:
            sys.stdout.write(json.dumps(line) + "\n")
        else:
            place = f"{line['rollout']}  {line['state']:<11}  step {line['step']}"
            if line["rollout"] is None:
                place = f"everybody  {line['state'].replace('_', ' ')}"
            sys.stdout.write(f"{line['at'][:19]}  {place}  {line['who']}: {line['why']}\n")
    return 0


def _tell(arguments: argparse.Namespace, status: dict[str, Any]) -> int:
    sys.stdout.write(json.dumps(status, indent=2) + "\n" if arguments.json else _shown(status))
    return 0


def _shown(status: dict[str, Any]) -> str:
    lines = []
    if status["killed"]:
        switch = status["switch"]
        lines.append(f"KILLED at {switch['at'][:19]} by {switch['who']}: {switch['why']}")
    stable = status["stable"]
    promoted = stable and f"{stable['checkpoint'][:12]} for {', '.join(stable['stages'])}"
    lines.append(f"stable: {promoted or 'what replicas are set to'}")
    if "rollout" not in status:  # whoever throws the kill switch is in a hurry
        return "\n".join([*lines, ""])
    if not (rollout := status["rollout"]):
        return "\n".join([*lines, "no rollout yet", ""])
    last, verdict = rollout["last"], rollout["verdict"]
    lines += [
        f"{rollout['name']}: {last['state']}, step {rollout['step']} of {len(rollout['steps'])}",
        f"  canary: {rollout['ratio']:.2%} of the clients",
        f"  checkpoint: {rollout['checkpoint'][:12]} for {', '.join(rollout['stages'])}",
        f"  since {last['at'][:19]} by {last['who']}: {last['why']}",
        f"  loaded by {rollout['loaded']} of {status['replicas']} replicas",
        f"  verdict: {verdict['action'] or '-'} ({verdict['why']})",
    ]
    lines += [
        f"  {one['metric']:<10} gain {_number(one['gain'])}, above {_number(one['low'])}, below "
        f"{_number(one['high'])}{', HARMFUL' if one['harmful'] else ''}"
        for one in verdict["findings"]
    ]
    goal = verdict["findings"][0]["metric"]
    lines += [
        f"  {one['pair']}, {one['traffic']} searches: {goal} {one['treated']:.4f} for {one['control']:.4f}, "
        f"{_number(one['change'])} ({one['scale']}; {_number(one['low'])} to {_number(one['high'])})"
        for one in rollout["comparisons"]
        if one["metric"] == goal and one["change"] is not None
    ]
    lines += [f"  {name}: {arm['searches']:.0f} searches" for name, arm in rollout["arms"].items()]
    return "\n".join([*lines, ""])


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:+.4f}"


def _who(arguments: argparse.Namespace) -> str:
    from app.registry.aliases import this_user  # noqa: PLC0415 -- after parsing

    return arguments.who or this_user()


@contextmanager
def _orders() -> Iterator[Orders]:
    from app.cli import settings_of  # noqa: PLC0415 -- as above
    from app.rollout.choice import make_orders, open_store  # noqa: PLC0415 -- after parsing: loads SQLAlchemy

    settings = settings_of(argparse.Namespace())
    database = open_store(settings)
    try:
        yield make_orders(settings, database)
    finally:
        database.close()
