"""`corewrite search`: a query's two rankings side by side. Heavy imports wait until the command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from training.evaluate import Rewrite

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 -- it has no public name


def add_search(subparsers: Subparsers) -> None:
    """Add `corewrite search`."""
    parser = subparsers.add_parser(
        "search",
        help="search a corpus with and without rewrites, side by side",
        description="Run the staged reference stack (recall, rawrank, finerank) over corpus.jsonl and show "
        "the ranking of the original query beside the one that takes the rewrites.",
    )
    parser.add_argument("query")
    parser.add_argument("--data", type=Path, required=True, help="folder with corpus.jsonl")
    parser.add_argument("--checkpoint", type=Path, help="folder of the rewriter (the one in the package)")
    parser.add_argument("--relevance", type=Path, help="folder of the relevance model")
    parser.add_argument("--depth", type=int, default=10, help="documents to show")
    parser.add_argument("--width", type=int, default=110, help="columns of the terminal")
    parser.set_defaults(run=run_search)


def run_search(args: argparse.Namespace) -> int:
    """Search and print. Returns 0, or 2 when that cannot be done."""
    import asyncio  # noqa: PLC0415 - see the module's docstring

    from app.errors import CheckpointError  # noqa: PLC0415
    from app.registry.checkpoint import DEFAULT_CHECKPOINT  # noqa: PLC0415
    from app.relevance.choice import DEFAULT_RELEVANCE  # noqa: PLC0415
    from app.relevance.model import OnnxRelevance  # noqa: PLC0415
    from training.datasets.beir import read_corpus  # noqa: PLC0415
    from training.datasets.examples import DataError  # noqa: PLC0415
    from training.search import Plan, Stack  # noqa: PLC0415
    from training.served import ServedRewriter  # noqa: PLC0415

    try:
        documents = read_corpus(args.data / "corpus.jsonl")
        (rewrites,) = ServedRewriter(args.checkpoint or DEFAULT_CHECKPOINT).rewrite([args.query])
        model = OnnxRelevance(args.relevance or DEFAULT_RELEVANCE, threads=2)
    except (DataError, CheckpointError) as error:
        sys.stderr.write(f"corewrite search: {error}\n")
        return 2

    async def both() -> list[list[str]]:
        stack = await Stack.over(documents, model)
        found = await stack.search([Plan(args.query), Plan(args.query, tuple(rewrites))])
        await model.close()
        return found

    original, rewritten = asyncio.run(both())
    text = {document.doc_id: document.content for document in documents}
    shown = [[text[doc_id] for doc_id in ranking[: args.depth]] for ranking in (original, rewritten)]
    sys.stdout.write(side_by_side(args.query, rewrites, shown[0], shown[1], args.width) + "\n")
    return 0


def side_by_side(
    query: str, rewrites: Sequence[Rewrite], original: Sequence[str], rewritten: Sequence[str], width: int
) -> str:
    """The rewrites, then both rankings in two columns; `+` marks what the original's column lacks."""
    column = (width - 9) // 2
    lines = [query, *(f"  {one.text}    confidence {one.confidence:.2f}" for one in rewrites)]
    if not rewrites:
        lines.append("  no rewrite: both rankings are the original's")
    lines += ["", f"     {'original':{column}}   with rewrites"]
    for rank, (left, right) in enumerate(zip(original, rewritten, strict=True), start=1):
        new = " " if right in original else "+"
        lines.append(f"{rank:3}  {_cut(left, column):{column}} {new} {_cut(right, column)}")
    return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
