"""The vLLM engine behind this service against `vllm serve` itself: same weights, same cores, one run.

    python loadtest/bench_vllm.py --python VLLM_VENV/bin/python --queries TITLES.tsv --json OUT.json

For each mode, greedy and a beam of 4, both servers are started and stay up; only one is loaded at a time, in
turn, and in the other order every other round. The servers and the client share the cores this process may
run on (`taskset -c`). Both decode alike: `vllm serve` gets the prompt that the service would render, and
gives log-probabilities as the service does. Each answer is checked, outside the time measured.

Three loads. `capacity`: closed-loop clients over queries that were never asked before. `latency`: Poisson
arrivals of such queries at a rate that both sustain, counted from the intended start. `zipf`: closed-loop
clients over a Zipf(1.0) trace of 10,000 queries. The service's cache starts empty, which the first round of
`zipf` reports by itself, and stays; before the other rounds it is warmed by `--warm` requests of the trace,
as it would be within the day that an entry lives. Read the ratios: medians over rounds of the ratio within a
round. `cpu_ms` is processor time of a server's processes per request, which a busy machine disturbs less.
"""

# ruff: noqa: T201 - it prints its result

from __future__ import annotations

import argparse
import asyncio
import csv
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import processes
from bench_http import free_port
from open_loop import closed_loop, open_loop, percentile, poisson_arrivals, zipf

from app.contracts.prompt import render

BEAM_WIDTH = 4
MAX_TOKENS = 32
ZIPF_QUERIES = 10_000
# Below the lower of both capacities, so that neither queue grows.
LOAD_RATIO = 0.6
WORK_DONE = {"rewritten", "no_change", "low_confidence", "guard"}
"""Outcomes that took a generation; any other is a failure of the measurement."""


class Server:
    """A server process and its open connections. Answers are kept and checked by `outcomes`."""

    name = ""
    path = ""

    def __init__(self, options: argparse.Namespace, mode: str) -> None:
        self.options, self.mode, self.port = options, mode, free_port()
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.answers: list[bytes] = []
        self.process = subprocess.Popen(  # noqa: S603 - this project's own commands, with the Python named
            self.command(),
            env={**os.environ, **THREADS, **self.environment()},
            cwd=Path(__file__).resolve().parents[1],
            stdout=subprocess.DEVNULL,
            stderr=None if options.verbose else subprocess.DEVNULL,
        )

    def command(self) -> list[str]:
        """What starts it."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """What it is told by its environment."""
        return {}

    def body(self, query: str) -> dict[str, Any]:
        """The request for one query."""
        raise NotImplementedError

    def outcome(self, answer: dict[str, Any]) -> tuple[str, str]:
        """What became of a request: a word, and the best text or nothing."""
        raise NotImplementedError

    def requests(self, queries: Iterable[str]) -> Iterator[bytes]:
        """The bytes to send for each query."""
        for query in queries:
            body = json.dumps(self.body(query)).encode()
            head = f"POST {self.path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
            yield f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def send(self, request: bytes) -> None:
        """Send one request over an idle connection, or a new one, and keep the answer."""
        if self.idle:
            reader, writer = self.idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        answer = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{self.name}: {head.decode()}{answer.decode()}")
        self.answers.append(answer)
        self.idle.append((reader, writer))

    def outcomes(self) -> Counter[str]:
        """Count the outcomes of the answers since the last call, and hang up."""
        counts = Counter(self.outcome(json.loads(answer))[0] for answer in self.answers)
        self.answers.clear()
        for _, writer in self.idle:
            writer.close()
        self.idle.clear()
        return counts

    def cpu_s(self) -> float:
        """Processor seconds of the server so far, all its processes together."""
        return processes.cpu_s(self.process.pid)

    async def wait_until_ready(self, timeout_s: float = 600.0) -> float:
        """Seconds until it answered; raises RuntimeError where it ends or takes too long."""
        began = time.monotonic()
        while time.monotonic() - began < timeout_s and self.process.poll() is None:
            try:
                await self.send(next(self.requests(["is anybody there"])))
            except (OSError, RuntimeError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.5)
            else:
                self.outcomes()
                return time.monotonic() - began
        raise RuntimeError(f"{self.name} does not start; --verbose shows why")

    def stop(self) -> None:
        """End the process and all that it started."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Corewrite(Server):
    """The service, with vLLM in process."""

    name = "corewrite"
    path = "/v1/rewrite"

    def command(self) -> list[str]:  # noqa: D102
        return [self.options.python, "-m", "app.cli", "serve", "--port", str(self.port)]

    def environment(self) -> dict[str, str]:  # noqa: D102
        arguments = {"dtype": self.options.dtype, "enforce_eager": not self.options.compiled}
        return {
            "REWRITE_ENGINE": "vllm",
            "REWRITE_CHECKPOINT": str(self.options.checkpoint),
            "REWRITE_VLLM_ARGUMENTS": json.dumps(arguments),
            "REWRITE_BEAM_WIDTH": str(BEAM_WIDTH if self.mode == "beam" else 1),
            "REWRITE_MAX_TOKENS": str(MAX_TOKENS),
            # Nothing may be shed, cut short or logged: vllm serve does none of it.
            "REWRITE_DEADLINE_MS": "60000",
            "REWRITE_GENERATION_TIMEOUT_S": "60",
            "REWRITE_MAX_INFLIGHT": "1024",
            "REWRITE_MAX_WAITING": "4096",
            "REWRITE_MAX_WAIT_MS": "60000",
            "REWRITE_LOG_LEVEL": "error",
        }

    def body(self, query: str) -> dict[str, Any]:  # noqa: D102
        return {"query": query}

    def outcome(self, answer: dict[str, Any]) -> tuple[str, str]:  # noqa: D102
        text = answer["rewrites"][0]["text"] if answer["rewrites"] else ""
        word = answer["reason"] or "rewritten"
        return (word if answer["cache"] == "miss" else f"{answer['cache']}, {word}"), text


class VllmServe(Server):
    """vLLM's own server."""

    name = "vllm serve"
    path = "/v1/completions"

    def command(self) -> list[str]:  # noqa: D102
        command = [str(Path(self.options.python).parent / "vllm"), "serve", str(self.options.checkpoint)]
        command += ["--port", str(self.port), "--served-model-name", "m", "--dtype", self.options.dtype]
        command += ["--max-model-len", "256", "--uvicorn-log-level", "error", "--disable-uvicorn-access-log"]
        # What the engine in process does without as well.
        command += ["--disable-log-stats"]
        return command if self.options.compiled else [*command, "--enforce-eager"]

    def body(self, query: str) -> dict[str, Any]:  # noqa: D102
        decoding: dict[str, Any] = {"logprobs": 0}
        if self.mode == "beam":
            decoding = {"use_beam_search": True, "n": BEAM_WIDTH, "length_penalty": 0.0}
        prompt = {"prompt": render(query), "add_special_tokens": False}
        return {"model": "m", **prompt, "max_tokens": MAX_TOKENS, "temperature": 0.0, **decoding}

    def outcome(self, answer: dict[str, Any]) -> tuple[str, str]:  # noqa: D102
        if len(answer["choices"]) != (BEAM_WIDTH if self.mode == "beam" else 1):
            return "too few completions", ""
        # A first token that begins a word brings its space along.
        return "rewritten", answer["choices"][0]["text"].strip()


SERVERS = (Corewrite, VllmServe)
THREADS = {
    "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
    "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"),
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    # As app/http/server.py, or connections close under the client.
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",
    "TOKENIZERS_PARALLELISM": "false",
}


class Trace:
    """Queries never asked before, by slices that both servers get alike."""

    def __init__(self, queries: list[str]) -> None:
        self.queries, self.at = queries, 0

    def fresh(self, count: int) -> list[str]:
        """The next `count` queries."""
        self.at += count
        if self.at > len(self.queries):
            raise RuntimeError("the queries are used up: fewer --rounds, fewer --seconds, or more queries")
        return self.queries[self.at - count : self.at]


def read_queries(path: Path) -> list[str]:
    """The distinct prompts' queries of the first column, in a random order that is always the same."""
    with path.open(encoding="utf-8") as lines:
        rows = itertools.islice(csv.reader(lines, delimiter="\t"), 1, None)
        # As the model reads them, so that no two are one cache entry or one prompt.
        queries = list({render(row[0]): row[0] for row in rows}.values())
    random.Random(0).shuffle(queries)
    return queries


async def measure_mode(options: argparse.Namespace, mode: str, queries: list[str]) -> dict[str, Any]:
    """Start both servers and measure them in turn; numbers by load, server and round."""
    popular, unique = queries[:ZIPF_QUERIES], Trace(queries[ZIPF_QUERIES:])
    found: dict[str, Any] = {"capacity": {}, "latency": {}, "zipf": {}, "start_s": {}}
    with ExitStack() as stack:
        servers = []
        for kind in SERVERS:
            servers.append(kind(options, mode))
            stack.callback(servers[-1].stop)
            found["start_s"][kind.name] = await servers[-1].wait_until_ready()
        found["agreement"] = await agreement(servers, unique.fresh(200))
        await warm_up(options, servers, unique)
        for number in range(options.rounds):
            order = servers if number % 2 == 0 else servers[::-1]
            seen: dict[str, Any] = {"loadavg": os.getloadavg()[0]}
            fresh = unique.fresh(options.slice)
            for server in order:
                seen[server.name] = await capacity(options, server, fresh)
            keep(found["capacity"], seen)
            for server in order:
                trace = zipf_trace(popular, seed=number)
                seen[server.name] = await capacity(options, server, trace, cached=True)
            keep(found["zipf"], seen)
            if number == 0:
                await warm_cache(options, servers, popular)
            rate = LOAD_RATIO * min(found["capacity"][s.name][-1]["requests_per_s"] for s in servers)
            schedule = poisson_arrivals(rate, options.seconds, seed=number)
            fresh = unique.fresh(len(schedule))
            for server in order:
                seen[server.name] = await latency(server, fresh, schedule, rate)
            keep(found["latency"], seen)
    return found


def keep(found: dict[str, list[Any]], seen: dict[str, Any]) -> None:
    """Append one round."""
    for name, value in seen.items():
        found.setdefault(name, []).append(value)


async def warm_up(options: argparse.Namespace, servers: list[Server], unique: Trace) -> None:
    """Load each for a moment."""
    fresh = unique.fresh(options.slice)
    for server in servers:
        await closed_loop(
            server.send, server.requests(fresh), clients=options.clients, seconds=min(3.0, options.seconds)
        )
        verified(server)


def zipf_trace(queries: list[str], *, seed: int) -> Iterator[str]:
    """An endless trace over `queries`, the first the most popular."""
    return (queries[i] for i in zipf(len(queries), 1.0, seed=seed))


async def warm_cache(options: argparse.Namespace, servers: list[Server], queries: list[str]) -> None:
    """Play a longer part of the trace to the servers that have a cache of answers."""
    for server in servers:
        if isinstance(server, Corewrite):
            requests = server.requests(itertools.islice(zipf_trace(queries, seed=-1), options.warm))
            await closed_loop(server.send, requests, clients=options.clients, seconds=600.0)
            verified(server, cached=True)


async def agreement(servers: list[Server], queries: list[str]) -> dict[str, int]:
    """How many of the service's rewrites are vllm serve's best completion; withheld ones are left out."""
    texts: list[list[str]] = []
    for server in servers:
        for request in server.requests(queries):
            await server.send(request)
        texts.append([server.outcome(json.loads(answer))[1] for answer in server.answers])
        verified(server)
    shown = [(ours, theirs) for ours, theirs in zip(*texts, strict=True) if ours]
    return {"rewrites": len(shown), "the_best_of_vllm_serve": sum(ours == theirs for ours, theirs in shown)}


def verified(server: Server, *, cached: bool = False) -> dict[str, int]:
    """The outcomes since the last check; raises RuntimeError where one is no work done."""
    counts = server.outcomes()
    for outcome in counts:
        from_cache, _, word = outcome.rpartition(", ")
        if word not in WORK_DONE or (from_cache and not cached):
            raise RuntimeError(f"{server.name} answered {dict(counts)}")
    return dict(counts)


async def capacity(
    options: argparse.Namespace, server: Server, queries: Iterable[str], *, cached: bool = False
) -> dict[str, Any]:
    """Requests per second of closed-loop clients."""
    spent_s = server.cpu_s()
    requests = server.requests(queries)
    rate = await closed_loop(server.send, requests, clients=options.clients, seconds=options.seconds)
    spent_s = server.cpu_s() - spent_s
    outcomes = verified(server, cached=cached)
    return {"requests_per_s": rate, "cpu_ms": spent_s * 1e3 / sum(outcomes.values()), "outcomes": outcomes}


async def latency(server: Server, queries: list[str], schedule: list[float], rate: float) -> dict[str, Any]:
    """Milliseconds from the intended start, of Poisson arrivals."""
    latencies = await open_loop(server.send, list(server.requests(queries)), schedule)
    p50, p99 = (percentile(latencies, percent) * 1e3 for percent in (50, 99))
    return {"p50_ms": p50, "p99_ms": p99, "arrivals_per_s": rate, "outcomes": verified(server)}


def rows_of(mode: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Medians over rounds, and the median, least and greatest of each round's ratio to vllm serve."""
    ours, theirs = (kind.name for kind in SERVERS)
    rows = []
    for load, field in LOADS:
        rounds = slice(1, None) if load == "zipf" else slice(None)
        if load == "zipf, first round":
            rounds = slice(1)
        of_load = found[load.split(",")[0]]
        left, right = ([one[field] for one in of_load[name]][rounds] for name in (ours, theirs))
        if not left:
            continue
        ratios = [a / b for a, b in zip(left, right, strict=True)]
        row: dict[str, Any] = {"mode": mode, "load": load, "measure": field}
        row |= {"corewrite": statistics.median(left), "vllm_serve": statistics.median(right)}
        row |= {"ratio": statistics.median(ratios), "least": min(ratios), "greatest": max(ratios)}
        if field == "p50_ms":
            row["arrivals_per_s"] = statistics.median(one["arrivals_per_s"] for one in of_load[ours])
        if "zipf" in load:
            hits = [hit_ratio(one["outcomes"]) for one in of_load[ours]][rounds]
            row["hit_ratio"] = statistics.median(hits)
        rows.append(
            {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        )
    return rows


LOADS = (
    ("capacity", "requests_per_s"),
    ("capacity", "cpu_ms"),
    ("latency", "p50_ms"),
    ("latency", "p99_ms"),
    ("zipf", "requests_per_s"),
    ("zipf, first round", "requests_per_s"),
)


def hit_ratio(outcomes: dict[str, int]) -> float:
    """The part of answers that took no generation of their own."""
    return sum(count for outcome, count in outcomes.items() if ", " in outcome) / sum(outcomes.values())


def show(result: dict[str, Any]) -> None:
    """Print the table as Markdown."""
    print("| mode | load | | corewrite | vllm serve | ratio | rounds' least, greatest | hits |")
    print("|---|---|---|--:|--:|--:|---|--:|")
    for row in result["rows"]:
        hits = f"{row['hit_ratio']:.3f}" if "hit_ratio" in row else ""
        print(
            f"| {row['mode']} | {row['load']} | {row['measure']} | {row['corewrite']:.1f} "
            f"| {row['vllm_serve']:.1f} | {row['ratio']:.2f} | {row['least']:.2f}, {row['greatest']:.2f} "
            f"| {hits} |"
        )
    for mode, rounds in result["rounds"].items():
        print(f"\n{mode}: {rounds['agreement']}, seconds to start {rounds['start_s']}, load average")
        print(rounds["capacity"]["loadavg"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--python", required=True, help="of the environment that has vLLM and the service")
    parser.add_argument(
        "--queries", type=Path, required=True, help="TSV with a header; first column: queries"
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("app/registry/default"))
    parser.add_argument("--modes", nargs="+", default=["greedy", "beam"], choices=["greedy", "beam"])
    parser.add_argument("--dtype", default="float32", help="of both servers")
    parser.add_argument("--compiled", action="store_true", help="let both servers compile the model")
    parser.add_argument("--clients", type=int, default=32, help="of the closed loops")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="of each load on each server in each round"
    )
    parser.add_argument("--warm", type=int, default=30_000, help="requests that warm the cache of answers")
    parser.add_argument("--slice", type=int, default=3000, help="unique queries at hand in each round")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--verbose", action="store_true", help="show what the servers print")
    options = parser.parse_args()
    options.checkpoint = options.checkpoint.resolve()
    queries = read_queries(options.queries)
    rounds = {mode: asyncio.run(measure_mode(options, mode, queries)) for mode in options.modes}
    result = {
        "rows": [row for mode, found in rounds.items() for row in rows_of(mode, found)],
        "rounds": rounds,
        "clients": options.clients,
        "seconds": options.seconds,
        "dtype": options.dtype,
        "compiled": options.compiled,
        "cores": sorted(os.sched_getaffinity(0)),
        "threads": THREADS["OMP_NUM_THREADS"],
    }
    show(result)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
