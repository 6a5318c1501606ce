"""Swaps under load: concurrent clients, checkpoints going back and forth, every request recorded.

    python loadtest/swaps.py --queries FILE --swaps 20 --json OUT.json

A server of its own, two checkpoints of known different answers (`sibling`), closed-loop clients: first
without swaps, then with one after the other, then without again. `history` judges every single request.
"""

# ruff: noqa: T201 - it prints its result

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.registry.checkpoint import DEFAULT_CHECKPOINT, Checkpoint, load_checkpoint
from loadtest.history import Request, Swap, violations
from loadtest.open_loop import percentile
from loadtest.processes import resident_mb
from loadtest.sibling import make_sibling

TOKEN = "drill"  # noqa: S105 - of a server that lives for this drill


@dataclass
class Drill:
    """One server under test, and what its clients saw. `clock` is this process's."""

    port: int
    queries: list[str]
    requests: list[Request] = field(default_factory=list)
    swaps: list[Swap] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    async def ask(self, query: str) -> Request:
        """Send one query on a connection of its own; whatever goes wrong is recorded, not raised."""
        began = time.perf_counter()
        try:
            status, body = await self._post("/v1/rewrite", {"query": query, "num_rewrites": 4})
        except (OSError, ValueError, asyncio.IncompleteReadError):
            return Request(began, time.perf_counter(), query, 0, None, None, None, None)
        ended = time.perf_counter()
        if status != 200:  # noqa: PLR2004
            return Request(began, ended, query, status, None, None, None, None)
        said = tuple(rewrite["text"] for rewrite in body["rewrites"])
        digest, reason = body["checkpoint"]["weights_digest"], body["reason"]
        return Request(began, ended, query, status, body["original"], digest, reason, said)

    async def load(self, clients: int, until: asyncio.Event) -> None:
        """Keep `clients` closed-loop clients busy until told to stop; each goes its own way through."""

        async def client(number: int) -> None:
            place = number * len(self.queries) // clients
            while not until.is_set():
                self.requests.append(await self.ask(self.queries[place % len(self.queries)]))
                place += 1

        await asyncio.gather(*(client(number) for number in range(clients)))

    async def activate(self, checkpoint: Checkpoint, mechanism: str) -> dict[str, Any]:
        """Ask for a checkpoint; a success is recorded as a swap."""
        began = time.perf_counter()
        status, body = await self._post(
            "/admin/checkpoints/activate", {"id": checkpoint.id, "mechanism": mechanism}
        )
        if status == 200:  # noqa: PLR2004
            self.swaps.append(Swap(began, time.perf_counter(), checkpoint.weights_digest))
        else:
            self.refused.append(body["detail"])
        return body

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        data = json.dumps(body).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(
                f"POST {path} HTTP/1.1\r\nhost: drill\r\nconnection: close\r\n"
                f"authorization: Bearer {TOKEN}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode()
                + data
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]
            return int(head.split(b" ", 2)[1]), json.loads(await reader.readexactly(int(length)))
        finally:
            writer.close()


def serve(folder: Path, first: Checkpoint, port: int, **settings: object) -> subprocess.Popen[bytes]:
    """Start a server over the checkpoints in `folder`."""
    environment = os.environ | {
        # GB; by itself vLLM on a CPU takes what memory there is, and two of them stand side by side here.
        "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"),
        "REWRITE_CHECKPOINT": str(first.path),
        "REWRITE_CHECKPOINTS": str(folder),
        "REWRITE_ADMIN_TOKEN": TOKEN,
        "REWRITE_PORT": str(port),
        "REWRITE_LOG_LEVEL": "error",
        "REWRITE_DEADLINE_MS": "60000",
        "REWRITE_GENERATION_TIMEOUT_S": "60",
        **{f"REWRITE_{name.upper()}": str(value) for name, value in settings.items()},
    }
    command = [sys.executable, "-m", "app.cli", "serve"]
    return subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[1])  # noqa: S603 - our own


async def until_ready(drill: Drill, process: subprocess.Popen[bytes], within_s: float) -> None:
    """Return when a query is answered."""
    end = time.perf_counter() + within_s
    while (await drill.ask("ready")).status != 200:  # noqa: PLR2004
        if process.poll() is not None or time.perf_counter() > end:
            raise RuntimeError("the server did not start")
        await asyncio.sleep(0.1)


async def expectations(drill: Drill, checkpoints: list[Checkpoint]) -> dict[tuple[str, str], tuple[str, ...]]:
    """What each checkpoint says to each query, one at a time, nothing else going on."""
    expected = {}
    for checkpoint in checkpoints:
        await drill.activate(checkpoint, "beside")
        for query in drill.queries:
            answer = await drill.ask(query)
            if answer.weights_digest != checkpoint.weights_digest or answer.said is None:
                raise RuntimeError(f"{checkpoint.id} did not answer {query!r}")
            expected[checkpoint.weights_digest, query] = answer.said
    return expected


async def run(drill: Drill, pair: list[Checkpoint], options: argparse.Namespace, pid: int) -> dict[str, Any]:
    """Expectations, then the phases; the last checkpoint of `expectations` serves at first."""
    expected = await expectations(drill, pair)
    different = sum(
        expected[pair[0].weights_digest, query] != expected[pair[1].weights_digest, query]
        for query in drill.queries
    )
    for checkpoint in pair:  # memory of a first swap, buffers and the like, is not what is looked for
        await drill.activate(checkpoint, options.mechanism)
    drill.swaps.clear()
    drill.requests.clear()
    stop, latencies, answers, memory_mb = asyncio.Event(), {}, [], {}
    load = asyncio.create_task(drill.load(options.clients, stop))
    await asyncio.sleep(options.warm_s)
    for phase in ("steady", "swapping", "steady after"):
        began, first = time.perf_counter(), len(drill.requests)
        if phase == "swapping":
            for number in range(options.swaps):
                answers.append(await drill.activate(pair[number % 2], options.mechanism))
                await asyncio.sleep(options.pause_s)
            seconds = time.perf_counter() - began
        else:
            await asyncio.sleep(options.steady_s)
        memory_mb[phase] = resident_mb(pid)  # under the same load each time
        latencies[phase] = [(r.end_s - r.start_s) * 1000 for r in drill.requests[first:]]
    stop.set()
    await load
    found = list(
        violations(drill.requests, drill.swaps, first_digest=pair[1].weights_digest, expected=expected)
    )
    steady = latencies["steady"] + latencies["steady after"]
    return {
        "engine": options.engine,
        "mechanism": options.mechanism,
        "clients": options.clients,
        "requests": len(drill.requests),
        "queries": len(drill.queries),
        "queries_answered_differently": different,
        "swaps": len(drill.swaps),
        "refused": drill.refused,
        "fell_back": sum(bool(answer.get("fell_back")) for answer in answers),
        "violations": len(found),
        "rules_broken": dict(Counter(violation.rule for violation in found)),
        "reasons": dict(Counter(request.reason or "none" for request in drill.requests)),
        "cached": options.cache_entries,
        "p50_ms": {phase: round(percentile(values, 50), 2) for phase, values in latencies.items()},
        "p99_ms": {phase: round(percentile(values, 99), 2) for phase, values in latencies.items()},
        "p99_swapping_to_steady": round(percentile(latencies["swapping"], 99) / percentile(steady, 99), 3),
        "switched_s": round(statistics.median(answer["switched_s"] for answer in answers), 3),
        "total_s": round(statistics.median(answer["total_s"] for answer in answers), 3),
        "swapping_s": round(seconds, 1),
        "resident_mb": memory_mb,
        "resident_after_to_before": round(memory_mb["steady after"] / memory_mb["steady"], 3),
    }


async def drill_once(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make the pair, serve, run, stop."""
    default = load_checkpoint(DEFAULT_CHECKPOINT)
    # Of another id than the original: folders are named by ids.
    pair = [
        await asyncio.to_thread(make_sibling, default, folder / f"sibling-{seed}", seed=seed)
        for seed in (1, 2)
    ]
    queries = [line.split("\t")[0] for line in options.queries.read_text(encoding="utf-8").splitlines()]
    chosen = sorted(set(queries))[:: max(1, len(set(queries)) // options.count)][: options.count]
    settings = {"engine": options.engine, "cache_entries": options.cache_entries, **options.setting}
    process = serve(folder, pair[0], options.port, **settings)
    drill = Drill(options.port, chosen)
    try:
        await until_ready(drill, process, within_s=600)
        return await run(drill, pair, options, process.pid)
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Run one drill and print what was found; exit status 1 where a rule was broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--queries", type=Path, required=True, help="one a line, the first column of a TSV")
    parser.add_argument("--count", type=int, default=200, help="queries to take, evenly from the file")
    parser.add_argument("--engine", default="embedded")
    parser.add_argument("--mechanism", choices=("beside", "in_place"), default="beside")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--pause-s", type=float, default=1.0, help="between swaps")
    parser.add_argument("--steady-s", type=float, default=20.0, help="of each phase without swaps")
    parser.add_argument("--warm-s", type=float, default=3.0)
    parser.add_argument("--cache-entries", type=int, default=0, help="0: every request asks the engine")
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument(
        "--setting",
        type=lambda text: text.split("=", 1),
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a further setting of the server",
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.setting = dict(options.setting)
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(drill_once(options, Path(folder)))
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if result["violations"] or result["refused"] else 0)


if __name__ == "__main__":
    main()
