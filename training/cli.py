"""`corewrite evaluate` and `evaluate-context`. Heavy imports wait until a command runs: `--help` is instant.

A sub-command sets `run`, a function from the parsed arguments to the exit status; see app/cli.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from training.evaluate import Report

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 -- it has no public name


def add_evaluate(subparsers: Subparsers) -> None:
    """Add `corewrite evaluate`: nDCG@10 and R@100 of every way to use a rewrite."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure retrieval with and without rewrites on a BEIR-style folder",
        description="Measure nDCG@10 and R@100 for BM25, dense and hybrid retrieval: with the original "
        "query, with a rewrite alone, and with both, beside the nearest-title and oracle rewriters.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with corpus.jsonl, queries.jsonl, qrels/"
    )
    parser.add_argument(
        "--split", required=True, help="which queries: qrels/SPLIT.tsv names the relevant ones"
    )
    parser.add_argument("--qrels", type=Path, help="qrels file to use instead of qrels/SPLIT.tsv")
    parser.add_argument("--typos", type=int, metavar="SEED", help="put one seeded typo in every query")
    parser.add_argument(
        "--checkpoint", type=Path, help="checkpoint folder of the rewriter (the one in the package)"
    )
    parser.add_argument(
        "--stages",
        action="store_true",
        help="measure the staged stack (recall, rawrank, finerank) in place of single retrievers",
    )
    parser.add_argument("--relevance", type=Path, help="folder of the relevance model, for --stages")
    parser.add_argument(
        "--only-judged", action="store_true", help="with --stages: rank judged documents alone"
    )
    parser.add_argument(
        "--arms", nargs="+", metavar="ARM", help="with --stages: only these, `none` first (all six)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="where to write the report as JSON")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="where to draw gain against coverage")
    parser.set_defaults(run=run_evaluate)


def run_evaluate(args: argparse.Namespace) -> int:
    """Evaluate, print a table, write what was asked for. Returns 0, or 2 when that cannot be done."""
    from app.contracts.fusion import recall_weight  # noqa: PLC0415 -- see the module's docstring
    from app.registry.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint  # noqa: PLC0415
    from training.baselines import NearestTitle, canonical_titles  # noqa: PLC0415
    from training.datasets.beir import read_task  # noqa: PLC0415
    from training.datasets.examples import DataError  # noqa: PLC0415
    from training.datasets.typos import with_typos  # noqa: PLC0415
    from training.evaluate import evaluate, oracle_answers  # noqa: PLC0415
    from training.retrieval import Rankings  # noqa: PLC0415
    from training.served import ServedRewriter  # noqa: PLC0415

    if args.stages:
        return _evaluate_stages(args)
    checkpoint = load_checkpoint(args.checkpoint or DEFAULT_CHECKPOINT)
    try:
        task = read_task(args.data, args.split, qrels=args.qrels)
        oracle = oracle_answers(task.queries, canonical_titles(args.data), typos=args.typos is not None)
        if args.typos is not None:
            task = task.with_queries(with_typos(task.queries, args.typos))
        nearest = None
        if (args.data / "synonyms_train.tsv").exists():
            titles = NearestTitle(args.data).rewrite([query.text for query in task.queries])
            nearest = {query.query_id: title for query, title in zip(task.queries, titles, strict=True)}
    except DataError as error:
        return _refuse(str(error))
    report = evaluate(
        task,
        Rankings.over(task.documents),
        rewriter=ServedRewriter(checkpoint.path, min_confidence=0.0),
        threshold=checkpoint.calibration.threshold,
        weigh=recall_weight,
        oracle=oracle or None,
        nearest=nearest,
    )
    _show(report, args)
    if args.plot:
        from training.curve import draw  # noqa: PLC0415

        draw(report.curve, args.plot)
    return 0


def _evaluate_stages(args: argparse.Namespace) -> int:
    """Measure the staged stack; what was asked for is written as `run_evaluate` does."""
    from app.registry.checkpoint import DEFAULT_CHECKPOINT  # noqa: PLC0415
    from app.relevance.choice import DEFAULT_RELEVANCE  # noqa: PLC0415
    from training.datasets.beir import read_task  # noqa: PLC0415
    from training.datasets.examples import DataError  # noqa: PLC0415
    from training.datasets.typos import with_typos  # noqa: PLC0415
    from training.evaluate import Report  # noqa: PLC0415
    from training.evaluate_stages import ARMS, measure_stages  # noqa: PLC0415
    from training.served import ServedRewriter  # noqa: PLC0415

    arms = tuple(args.arms or ARMS)
    if arms[0] != "none" or not set(arms) <= set(ARMS):
        return _refuse(f"--arms: `none` first, then some of {', '.join(ARMS[1:])}")
    try:
        task = read_task(args.data, args.split, qrels=args.qrels)
    except DataError as error:
        return _refuse(str(error))
    if args.typos is not None:
        task = task.with_queries(with_typos(task.queries, args.typos))
    rows = measure_stages(
        task,
        ServedRewriter(args.checkpoint or DEFAULT_CHECKPOINT),
        args.relevance or DEFAULT_RELEVANCE,
        arms=arms,
        only_judged=args.only_judged,
    )
    report = Report(tuple(rows))
    _show(report, args)
    return 0


def add_evaluate_context(subparsers: Subparsers) -> None:
    """Add `corewrite evaluate-context`: what the context is worth."""
    parser = subparsers.add_parser(
        "evaluate-context",
        help="measure rewrites of follow-ups and conversations, with and without their context",
        description="Exact match and R@10 on held-out fashion follow-ups; exact match and ROUGE-1 recall "
        "on context/dev against the human rewrites.",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with fashion/ and context/")
    parser.add_argument(
        "--checkpoint", type=Path, help="checkpoint folder of the rewriter (the one in the package)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="where to write the rows as JSON")
    parser.set_defaults(run=run_evaluate_context)


def run_evaluate_context(args: argparse.Namespace) -> int:
    """Evaluate, print a table, write what was asked for. Returns 0, or 2 when that cannot be done."""
    from app.registry.checkpoint import DEFAULT_CHECKPOINT  # noqa: PLC0415
    from training.datasets.examples import DataError  # noqa: PLC0415
    from training.evaluate_context import (  # noqa: PLC0415
        evaluate_conversations,
        evaluate_follow_ups,
        rewrite_with,
    )
    from training.served import ServedRewriter  # noqa: PLC0415

    checkpoint = args.checkpoint or DEFAULT_CHECKPOINT
    served = rewrite_with(ServedRewriter(checkpoint))
    anyway = rewrite_with(ServedRewriter(checkpoint, min_confidence=0.0))
    try:
        rows = evaluate_follow_ups(args.data / "fashion" / "items.jsonl", served)
        turns = args.data / "context" / "dev.jsonl"
        rows += evaluate_conversations(turns, served)
        rows += [
            {**row, "rewrite": "rewrite_any_confidence"}
            for row in evaluate_conversations(turns, anyway)
            if row["rewrite"] == "rewrite"
        ]
    except DataError as error:
        return _refuse(str(error))
    for row in rows:
        sys.stdout.write("  ".join(f"{name} {value}" for name, value in row.items()) + "\n")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 0


def as_table(report: Report) -> str:
    """Return the rows as aligned text, for the terminal."""
    lines = [
        f"{'retriever':9} {'rewrite':16} {'nDCG@10':>8} {'95 %':>17} {'R@100':>7} {'delta':>8} {'95 %':>19}"
    ]
    lines += [
        f"{row.retriever:9} {row.rewrite:16} {row.ndcg:8.4f} [{row.ci[0]:.4f}, {row.ci[1]:.4f}] "
        f"{row.recall:7.4f} {row.delta:+8.4f} [{row.delta_ci[0]:+.4f}, {row.delta_ci[1]:+.4f}]"
        for row in report.rows
    ]
    facts = ", ".join(f"{name} {count}" for name, count in report.facts.items())
    return "\n".join([*lines, facts])


def _show(report: Report, args: argparse.Namespace) -> None:
    """Print the table; write the report where `--json` says."""
    sys.stdout.write(as_table(report) + "\n")
    if args.json:
        about = {"data": args.data.resolve().name, "split": args.split, "typos": args.typos}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**about, **report.as_json()}, indent=1) + "\n", encoding="utf-8")


def _refuse(complaint: str) -> int:
    sys.stderr.write(f"corewrite evaluate: {complaint}\n")
    return 2
