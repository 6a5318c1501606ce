"""Compare CPU backends for the embedded engine: latency, throughput and greedy-token equality.

Each backend runs in a process of its own, with the Python that has it:

    python loadtest/bench_engines.py --checkpoint DIR --prompts TITLES.tsv --threads 1 \
        --python openvino=OTHER_VENV/bin/python --python ctranslate2=OTHER_VENV/bin/python \
        --python vllm=VLLM_VENV/bin/python --json OUT.json

All load the same weights, stay loaded, and are measured in turn, round after round, so that a slow minute of
the machine hits all of them. Clients are closed-loop: each sends its next request when the last is answered.
Equality is against transformers in float32, one prompt at a time, up to and including the first end token.
A backend that cannot be imported is skipped and the reason printed.
"""

# ruff: noqa: D102, T201 - no public methods, and it prints its result

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BACKENDS = ("transformers", "onnxruntime", "openvino-f32", "openvino-bf16", "ctranslate2", "vllm")
REFERENCE, BASELINE = "transformers", "onnxruntime"


class Worker:
    """A backend's process; one JSON object a line each way."""

    def __init__(self, name: str, python: str, options: argparse.Namespace) -> None:
        command = [python, __file__, "--worker", name, "--checkpoint", str(options.checkpoint)]
        command += ["--threads", str(options.threads), "--max-tokens", str(options.max_tokens)]
        command += ["--mode", options.mode]
        environment = os.environ | {
            "OMP_NUM_THREADS": str(options.threads),
            "TOKENIZERS_PARALLELISM": "false",
        }
        self.process = subprocess.Popen(  # noqa: S603 - this file, with a Python the caller named
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.ready = self.read()

    def read(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the process ended"}
        return answer

    def ask(self, **message: Any) -> dict[str, Any]:
        if self.process.stdin:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds; returns what `--json` writes."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - the workers' Pythons need not have it

    from app.contracts.prompt import END, render  # noqa: PLC0415

    tokenizer = Tokenizer.from_file(str(options.checkpoint / "tokenizer.json"))
    # A beam's answer depends on where hypotheses may end, which some of these can only forbid: none ends.
    end_id = tokenizer.token_to_id(END) if options.mode == "greedy" else None
    with options.prompts.open(encoding="utf-8") as lines:
        titles = [row[0] for row in csv.reader(lines, delimiter="\t")][1:]
    texts = [render(title) for title in titles[:: max(1, len(titles) // 200)][:200]]
    prompts = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    if options.prompt_tokens:
        prompts = [(ids * options.prompt_tokens)[: options.prompt_tokens] for ids in prompts]
    pythons = dict(pair.split("=", 1) for pair in options.python)
    workers: dict[str, Worker] = {}
    for name in options.backends:
        worker = Worker(name, pythons.get(name) or pythons.get(name.split("-")[0]) or sys.executable, options)
        if "error" in worker.ready:
            print(f"skipped {name}: {worker.ready['error']}", flush=True)
            worker.close()
        else:
            workers[name] = worker
    tokens = {
        (name, clients): worker.ask(prompts=prompts, clients=clients, count=len(prompts), end_id=end_id)[
            "tokens"
        ]
        for name, worker in workers.items()
        for clients in (1, 32)
    }
    rounds: list[dict[str, Any]] = []
    for number in range(options.rounds):
        order = list(workers.items())[:: 1 if number % 2 == 0 else -1]
        for clients in options.clients:
            for name, worker in order:
                count = max(32, 4 * clients)
                answer = worker.ask(prompts=prompts, clients=clients, count=count, end_id=None)
                del answer["tokens"]
                answer["loadavg"] = os.getloadavg()[0]
                rounds.append({"round": number, "backend": name, "clients": clients, **answer})
    for worker in workers.values():
        worker.close()
    return {
        "rows": summarise(rounds, options),
        "equality": equality(tokens, end_id),
        "rounds": rounds,
        "threads": options.threads,
        "max_tokens": options.max_tokens,
        "mode": options.mode,
        "prompts": {"count": len(prompts), "tokens_median": statistics.median(map(len, prompts))},
        "versions": {name: worker.ready["version"] for name, worker in workers.items()},
        "cores": sorted(os.sched_getaffinity(0)),
    }


def equality(tokens: dict[tuple[str, int], list[list[int]]], end_id: int | None) -> list[dict[str, Any]]:
    """How many completions are those of the reference, and those of the same backend alone."""

    def cut(completion: list[int]) -> list[int]:
        if end_id is None:
            return completion
        return completion[: completion.index(end_id) + 1] if end_id in completion else completion

    def same(left: tuple[str, int], right: tuple[str, int]) -> int | None:
        if right not in tokens:
            return None
        return sum(cut(a) == cut(b) for a, b in zip(tokens[left], tokens[right], strict=True))

    return [
        {
            "backend": name,
            "equal_to_reference": same((name, 1), (REFERENCE, 1)),
            "equal_to_reference_under_load": same((name, 32), (REFERENCE, 1)),
            "equal_alone_and_under_load": same((name, 32), (name, 1)),
        }
        for name in dict.fromkeys(name for name, _ in tokens)
    ]


def summarise(rounds: list[dict[str, Any]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Medians over the rounds, and the median of each round's ratio to the baseline."""

    def values(name: str, clients: int, key: str) -> list[float]:
        return [r[key] for r in rounds if r["backend"] == name and r["clients"] == clients]

    rows = []
    for clients in options.clients:
        for name in dict.fromkeys(r["backend"] for r in rounds):
            row: dict[str, Any] = {"clients": clients, "backend": name}
            for key in ("p50_ms", "requests_per_s"):
                own, base = values(name, clients, key), values(BASELINE, clients, key)
                row[key] = statistics.median(own)
                row[f"{key}_ratio"] = (
                    statistics.median(a / b for a, b in zip(own, base, strict=True)) if base else math.nan
                )
            rows.append(row)
    return rows


def show(result: dict[str, Any]) -> None:
    """Print the tables as Markdown."""
    print("| clients | backend | p50 ms | to onnxruntime | requests/s | to onnxruntime |")
    print("|---|---|---|---|---|---|")
    for row in result["rows"]:
        print(
            f"| {row['clients']} | {row['backend']} | {row['p50_ms']:.1f} | {row['p50_ms_ratio']:.2f} "
            f"| {row['requests_per_s']:.1f} | {row['requests_per_s_ratio']:.2f} |"
        )
    count = result["prompts"]["count"]
    print(
        f"\n| backend | equal to transformers, of {count} | the same at 32 clients | alone = at 32 clients |"
    )
    print("|---|---|---|---|")
    for row in result["equality"]:
        print("| {backend} | {equal_to_reference} | {equal_to_reference_under_load} "
              "| {equal_alone_and_under_load} |".format(**row))  # fmt: skip
    print(f"\n{result['versions']}")


async def load(backend: Any, prompts: list[list[int]], clients: int, count: int) -> dict[str, Any]:
    """Send `count` requests from closed-loop clients."""
    numbers = iter(range(count))
    tokens: list[list[int]] = [[]] * count
    latencies: list[float] = []

    async def client() -> None:
        for i in numbers:
            start = time.perf_counter()
            tokens[i] = await backend.complete(prompts[i % len(prompts)])
            latencies.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    wall_s = time.perf_counter() - start
    p50_ms = statistics.median(latencies) * 1e3
    return {"p50_ms": p50_ms, "requests_per_s": count / wall_s, "tokens": tokens}


async def work(options: argparse.Namespace) -> None:
    """A worker: build the backend, then answer one line with one line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not break the protocol

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        import bench_backends  # noqa: PLC0415 - beside this file

        backend = bench_backends.make(options)
        await backend.start()
    except Exception as error:  # noqa: BLE001 - the reason is the answer
        say({"error": f"{type(error).__name__}: {error}"})
        return
    say({"version": backend.version})
    while line := await asyncio.to_thread(sys.stdin.readline):
        message = json.loads(line)
        backend.ends(message["end_id"])
        await load(backend, message["prompts"], message["clients"], 2 * message["clients"])
        say(await load(backend, message["prompts"], message["clients"], message["count"]))
    await backend.close()


def main() -> None:
    """Parse, then measure or be a worker."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of a Qwen3-type model")
    parser.add_argument("--prompts", type=Path, help="TSV with a header; the first column holds queries")
    parser.add_argument("--threads", type=int, default=1, help="threads of every backend")
    parser.add_argument("--max-tokens", type=int, default=16, help="new tokens a request, exactly")
    parser.add_argument("--prompt-tokens", type=int, help="repeat or cut every prompt to this many tokens")
    parser.add_argument(
        "--mode", choices=("greedy", "beam"), default="greedy", help="beam: of width 4, best 1"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=BACKENDS)
    parser.add_argument("--python", action="append", default=[], help="BACKEND=PYTHON, repeatable")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--worker", choices=BACKENDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        asyncio.run(work(options))
        return
    if options.prompts is None:
        parser.error("--prompts is required")
    result = measure(options)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
