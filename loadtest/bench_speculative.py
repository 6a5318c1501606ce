"""Speculative decoding by prompt lookup, on each engine that has it, against the same engine without.

    python loadtest/bench_speculative.py --checkpoint DIR --data DATA --json OUT.json \
        --python vllm=VLLM_VENV/bin/python --python openvino=OTHER_VENV/bin/python

A rewrite often repeats words of its query: n-grams of the prompt are proposed as the next tokens, and one
step of the model verifies them all. Greedy decoding, which this must not change: tokens that differ are
counted. Each library runs in a process of its own with both variants loaded, measured in turn, round after
round; libraries are not compared with each other. Requests are job titles, product queries, and refinements
of a fashion item, whose context holds much of the answer. `tokens_per_step` is taken at one client.

The embedded engine is not among them: its graph attends with one new token a row once a row has a past.
"""

# ruff: noqa: D102, T201 - no public methods, and it prints its result

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench_backends
from bench_engines import load

from app.contracts.prompt import END, Context, Item, render

LIBRARIES = ("vllm", "transformers", "openvino")
WITHOUT, WITH = "without", "prompt lookup"
MAX_TOKENS = 32
REFINEMENTS = ("in blue", "for women", "same in black", "something casual")


class VllmSteps(bench_backends.Vllm):
    """vLLM, counting the steps that gave tokens; `lookup` tokens are proposed at a time."""

    def __init__(self, options: argparse.Namespace, lookup: int) -> None:
        super().__init__(options)
        self.steps = 0
        if lookup:
            self.arguments.speculative_config = {
                "method": "ngram",
                "num_speculative_tokens": lookup,
                "prompt_lookup_max": options.ngram,
                "prompt_lookup_min": 1,
            }

    def ends(self, end_id: int | None) -> None:
        from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415

        super().ends(end_id)
        self.greedy_params.output_kind = RequestOutputKind.DELTA

    async def complete(self, prompt: list[int]) -> list[int]:
        tokens: list[int] = []
        ids = self.input(list(prompt))
        async for output in self.llm.generate(ids, self.greedy_params, str(next(self.numbers))):
            tokens += output.outputs[0].token_ids
            self.steps += 1
        return tokens


class OpenVinoSteps(bench_backends.OpenVino):
    """OpenVINO GenAI's continuous batching, counting its steps."""

    def __init__(self, options: argparse.Namespace, lookup: int) -> None:
        super().__init__(options, **({"prompt_lookup": True} if lookup else {}))
        self.steps = 0
        if lookup:
            self.config.num_assistant_tokens = lookup
            self.config.max_ngram_size = options.ngram
        step = self.pipeline.step

        def counted() -> None:
            self.steps += 1
            step()

        self.step = counted

    def ends(self, end_id: int | None) -> None:
        self.config.ignore_eos = end_id is None
        self.config.stop_token_ids = set() if end_id is None else {end_id}


class TransformersSteps(bench_backends.Collected):
    """`generate`, counting calls of the model; lookup takes one request at a time."""

    def __init__(self, options: argparse.Namespace, lookup: int) -> None:
        import torch  # noqa: PLC0415
        import transformers as library  # noqa: PLC0415

        super().__init__(library.__version__, self.batch)
        torch.set_num_threads(options.threads)
        self.torch, self.steps, self.end_id = torch, 0, None
        model = library.Qwen3ForCausalLM.from_pretrained(options.checkpoint, dtype=torch.float32)
        self.model: Any = model.eval()
        self.lookup = {"prompt_lookup_num_tokens": lookup, "max_matching_ngram_size": options.ngram}
        self.one_by_one = bool(lookup)

        def count(*_: Any) -> None:
            self.steps += 1

        self.model.register_forward_pre_hook(count)

    def ends(self, end_id: int | None) -> None:
        self.end_id = end_id

    def batch(self, prompts: list[list[int]]) -> list[list[int]]:
        if not self.one_by_one:
            return self.generate(prompts)
        return [self.generate([prompt], **self.lookup)[0] for prompt in prompts]

    def generate(self, prompts: list[list[int]], **lookup: int) -> list[list[int]]:
        width = max(map(len, prompts))
        ids = self.torch.tensor([[0] * (width - len(p)) + p for p in prompts])
        mask = self.torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        limits = {"max_new_tokens": MAX_TOKENS, "do_sample": False, "pad_token_id": 0, "use_cache": True}
        with self.torch.inference_mode():
            out = self.model.generate(ids, attention_mask=mask, eos_token_id=self.end_id, **limits, **lookup)
        return [cut(tokens, self.end_id) for tokens in out[:, width:].tolist()]


def cut(tokens: list[int], end_id: int | None) -> list[int]:
    """Up to and including the first end token."""
    return tokens[: tokens.index(end_id) + 1] if end_id in tokens else tokens


def read_prompts(data: Path, count: int) -> dict[str, list[str]]:
    """Prompts by kind, spread over each file."""

    def spread(values: list[Any]) -> list[Any]:
        return values[:: max(1, len(values) // count)][:count]

    with (data / "jobs" / "synonyms_train.tsv").open(encoding="utf-8") as lines:
        titles = [row[0] for row in csv.reader(lines, delimiter="\t")][1:]
    with (data / "products" / "queries.jsonl").open(encoding="utf-8") as lines:
        products = [json.loads(line)["text"] for line in lines]
    with (data / "fashion" / "items.jsonl").open(encoding="utf-8") as lines:
        items = spread([json.loads(line) for line in lines])
    shown = ("gender", "article_type", "base_colour", "usage")
    contexts = [
        Context(last_item=Item(item["title"], ", ".join(str(item[field]) for field in shown)))
        for item in items
    ]
    refinements = [REFINEMENTS[i % len(REFINEMENTS)] for i in range(len(contexts))]
    return {
        "titles": [render(title) for title in spread(titles)],
        "products": [render(query) for query in spread(products)],
        "follow-ups": [render(query, context) for query, context in zip(refinements, contexts, strict=True)],
    }


async def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Both variants of one library: rounds in turn, tokens, steps."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - the measuring process does without

    kind = {"vllm": VllmSteps, "openvino": OpenVinoSteps, "transformers": TransformersSteps}[options.worker]
    variants = {WITHOUT: kind(options, 0), WITH: kind(options, options.lookup)}
    tokenizer = Tokenizer.from_file(str(options.checkpoint / "tokenizer.json"))
    end_id = tokenizer.token_to_id(END)
    rows: list[dict[str, Any]] = []
    for backend in variants.values():
        await backend.start()
        backend.ends(end_id)
    for name, texts in read_prompts(options.data, options.count).items():
        prompts = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        tokens, per_step = {}, {}
        for variant, backend in variants.items():
            backend.steps = 0
            tokens[variant] = (await load(backend, prompts, 1, len(prompts)))["tokens"]
            per_step[variant] = sum(map(len, tokens[variant])) / backend.steps
        differ = sum(a != b for a, b in zip(tokens[WITHOUT], tokens[WITH], strict=True))
        for clients in options.clients:
            found: dict[str, list[Any]] = {variant: [] for variant in variants}
            for number in range(options.rounds):
                for variant in list(variants)[:: 1 if number % 2 == 0 else -1]:
                    found[variant].append(await load(variants[variant], prompts, clients, len(prompts)))
            rows.append(
                {
                    "library": options.worker,
                    "prompts": name,
                    "clients": clients,
                    "requests": len(prompts),
                    "tokens_median": statistics.median(map(len, tokens[WITHOUT])),
                    "differ": differ,
                    "tokens_per_step": round(per_step[WITHOUT], 3),
                    "tokens_per_step_lookup": round(per_step[WITH], 3),
                    **summary(found),
                }
            )
    for backend in variants.values():
        await backend.close()
    return {"rows": rows, "version": variants[WITHOUT].version}


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the rounds, and the median of each round's ratio."""
    numbers: dict[str, Any] = {}
    for key in ("p50_ms", "requests_per_s"):
        without, lookup = ([one[key] for one in found[variant]] for variant in (WITHOUT, WITH))
        numbers[key] = round(statistics.median(without), 2)
        numbers[f"{key}_lookup"] = round(statistics.median(lookup), 2)
        ratios = [b / a for a, b in zip(without, lookup, strict=True)]
        numbers[f"{key}_ratio"] = round(statistics.median(ratios), 3)
    return numbers


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run each library in its own process, one after the other."""
    pythons = dict(pair.split("=", 1) for pair in options.python)
    rows, versions = [], {}
    for name in options.libraries:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "out.json")
            command = [pythons.get(name, sys.executable), __file__, "--worker", name, "--json", str(out)]
            for option in ("checkpoint", "data", "threads", "rounds", "count", "lookup", "ngram"):
                command += [f"--{option}", str(getattr(options, option))]
            command += ["--clients", *map(str, options.clients)]
            environment = os.environ | {
                "OMP_NUM_THREADS": str(options.threads),
                "TOKENIZERS_PARALLELISM": "false",
            }
            status = subprocess.run(command, check=False, env=environment).returncode  # noqa: S603 - this file
            if not out.exists():
                print(f"skipped {name}: exit status {status}", flush=True)
                continue
            answer = json.loads(out.read_text(encoding="utf-8"))
        rows += answer["rows"]
        versions[name] = answer["version"]
    return {
        "rows": rows,
        "versions": versions,
        "lookup": options.lookup,
        "ngram": options.ngram,
        "threads": options.threads,
        "rounds": options.rounds,
        "cores": sorted(os.sched_getaffinity(0)),
        "loadavg": os.getloadavg(),
    }


def show(result: dict[str, Any]) -> None:
    """Print the table as Markdown."""
    print("| library | prompts | clients | tokens a step | with lookup | requests/s | ratio | p50 | differ |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for row in result["rows"]:
        print(
            "| {library} | {prompts} | {clients} | {tokens_per_step:.2f} | {tokens_per_step_lookup:.2f} "
            "| {requests_per_s:.1f} | {requests_per_s_ratio:.2f} | {p50_ms_ratio:.2f} "
            "| {differ} of {requests} |".format(**row)
        )
    print(f"\n{result['versions']}, load average {result['loadavg']}")


def main() -> None:
    """Parse, then measure or be a worker."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of a Qwen3-type model")
    parser.add_argument("--data", type=Path, required=True, help="folder with jobs, products and fashion")
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=LIBRARIES)
    parser.add_argument("--python", action="append", default=[], help="LIBRARY=PYTHON, repeatable")
    parser.add_argument("--lookup", type=int, default=3, help="tokens proposed at a time")
    parser.add_argument("--ngram", type=int, default=2, help="the longest n-gram that is looked up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=64, help="requests of each kind in each round")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--worker", choices=LIBRARIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        options.mode, options.max_tokens = "greedy", MAX_TOKENS
        result = asyncio.run(compare(options))
    else:
        result = measure(options)
        show(result)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
