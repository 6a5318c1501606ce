"""How long signals take, end to end, and where the time goes; what a smaller budget leaves of them.

    python loadtest/bench_signals.py --data DIR/products --json OUT.json

One server in a process of its own, one client at a time: a misspelt query, and documents that no query had
before. Then the same with documents that it remembers the embeddings of, then with smaller and smaller
budgets. The times of the stages are those the answers state; the total is the client's.
"""

# ruff: noqa: T201 - it prints its result

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from bench_http import ask, free_port

STAGES = ("recall", "rawrank", "finerank")
CANDIDATES, WORDS = 100, 20
PATIENT_MS = 10_000
BUDGETS_MS = (800, 400, 200, 100, 50)


def misspelt(text: str) -> str:
    """The query with two neighbouring letters inside its longest word exchanged."""
    word = max(text.split(), key=len)
    middle = len(word) // 2
    return text.replace(word, word[: middle - 1] + word[middle] + word[middle - 1] + word[middle + 1 :], 1)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a .jsonl file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def requests(data: Path, count: int) -> Iterator[dict[str, Any]]:
    """`count` queries in turn, each with CANDIDATES documents of its own, of about 30 tokens."""
    queries = [misspelt(row["text"]) for row in read_lines(data / "queries.jsonl") if len(row["text"]) > 5]  # noqa: PLR2004
    documents = Random(3).choices(read_lines(data / "corpus.jsonl"), k=count * CANDIDATES)
    texts = [f"{number} " + f"{row.get('title', '')} {row['text']}" for number, row in enumerate(documents)]
    for number in range(count):
        share = texts[number * CANDIDATES : (number + 1) * CANDIDATES]
        yield {
            "query": queries[number % len(queries)],
            "candidates": [
                {"id": str(place), "text": " ".join(text.split()[:WORDS])} for place, text in enumerate(share)
            ],
            "stages": list(STAGES),
        }


class Client:
    """One connection that is kept open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def signals(self, body: dict[str, Any], deadline_ms: int) -> dict[str, Any]:
        """The answer, with the client's own milliseconds beside those of the stages."""
        began = time.perf_counter()
        text = json.dumps({**body, "deadline_ms": deadline_ms})
        self._connection.request("POST", "/v1/signals", text, {"content-type": "application/json"})
        response = self._connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        if response.status != 200:  # noqa: PLR2004
            raise RuntimeError(f"{response.status}: {answer}")
        answer["timings_ms"]["client"] = (time.perf_counter() - began) * 1000
        return answer


def summary(name: str, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """p50 and p99 by part over answers that have every signal; the share of all that has each."""
    whole = [
        answer for answer in answers if all(answer["stages"][stage]["reason"] is None for stage in STAGES)
    ]
    row: dict[str, Any] = {"case": name, "requests": len(answers), "whole": len(whole)}
    rewritten = [answer for answer in answers if answer["reason"] is None]
    for stage in STAGES:
        having = [answer for answer in rewritten if answer["stages"][stage]["reason"] is None]
        row[f"{stage}_ratio"] = round(len(having) / max(1, len(rewritten)), 3)
    row["late_ratio"] = round(
        sum(answer["timings_ms"]["client"] > answer["budget_ms"] for answer in answers) / len(answers), 3
    )
    for part in ("client", "rewrite", *STAGES) if whole else ():
        times = [answer["timings_ms"][part] for answer in whole]
        row[f"{part}_p50_ms"] = round(statistics.median(times), 1)
        row[f"{part}_p99_ms"] = round(float(np.percentile(times, 99)), 1)
    return row


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start the server and measure the cases in turn."""
    port = free_port()
    settings = {"REWRITE_RELEVANCE_THREADS": str(options.threads), "REWRITE_LOG_LEVEL": "error"}
    if options.relevance:
        settings |= {"REWRITE_RELEVANCE": "onnx", "REWRITE_RELEVANCE_PATH": str(options.relevance)}
    command = [str(Path(sys.executable).parent / "corewrite"), "serve", "--port", str(port)]
    rows = []
    with subprocess.Popen(  # noqa: S603 - this project's own command
        command, env=os.environ | settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            ask(port)
            client = Client(port)
            bodies = list(requests(options.data, options.requests + 5))

            def run(name: str, deadline_ms: int) -> None:
                answers = [
                    client.signals({**body, "num_rewrites": options.rewrites}, deadline_ms)
                    | {"budget_ms": deadline_ms}
                    for body in bodies[5:]
                ]
                rows.append(summary(name, answers))

            for body in bodies[:5]:
                client.signals(body, PATIENT_MS)
            run("new documents", PATIENT_MS)
            for body in bodies[5:]:  # those of the first requests were forgotten for those of the last
                body["candidates"] = bodies[-1]["candidates"]
            run("known documents", PATIENT_MS)
            for budget_ms in BUDGETS_MS:
                run(f"known documents, {budget_ms} ms", budget_ms)
        finally:
            server.terminate()
    return {
        "threads": options.threads,
        "candidates": CANDIDATES,
        "rewrites": options.rewrites,
        "rows": rows,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="the products folder")
    parser.add_argument("--relevance", type=Path, help="folder of the model (the one in the package)")
    parser.add_argument("--requests", type=int, default=100, help="of each case")
    parser.add_argument("--rewrites", type=int, default=1, help="asked for; each is scored on its own")
    parser.add_argument("--threads", type=int, default=2, help="of the relevance model")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options)
    for row in result["rows"]:
        print(json.dumps(row))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
