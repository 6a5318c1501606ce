"""Real swaps of real checkpoints on a real server, under load, judged request by request."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from redis_server import running_redis

from app.contracts.manifest import MANIFEST_NAME
from app.registry.checkpoint import DEFAULT_CHECKPOINT, Checkpoint, describe_file, load_checkpoint
from loadtest.history import violations
from loadtest.sibling import make_sibling
from loadtest.swaps import TOKEN, Drill, expectations, run, serve, until_ready

QUERIES = (
    "rn icu nights", "truck hopper", "registerd nurse", "code monkey", "er doctor", "bluetoth headphones",
    "lorry driver", "night shift nurse", "forklift operater", "it guy", "wedding photographer", "line cook",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def pair(folder: Path) -> list[Checkpoint]:
    default = load_checkpoint(DEFAULT_CHECKPOINT)
    return [make_sibling(default, folder / f"sibling-{seed}", seed=seed) for seed in (1, 2)]


@pytest.fixture
def drill(folder: Path, pair: list[Checkpoint]) -> Iterator[Callable[..., Any]]:
    """Serve the first of the pair; returns the drill and the process."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**settings: object) -> tuple[Drill, subprocess.Popen[bytes]]:
        port = free_port()
        process = serve(folder, pair[0], port, engine_threads=1, **settings)
        started.append(process)
        drill = Drill(port, list(QUERIES))
        asyncio.run(until_ready(drill, process, within_s=60))
        return drill, process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.fault(
    broken="twenty swaps of checkpoints under 32 clients, beside and in place",
    promised="no request lost, none answered by a mixture or by what was replaced; memory back at its level",
)
@pytest.mark.parametrize(
    ("mechanism", "cache_entries"), [("beside", 0), ("beside", 1000), ("in_place", 0), ("in_place", 1000)]
)
def test_twenty_swaps_under_32_clients_lose_and_mix_nothing(
    drill: Callable[..., Any], pair: list[Checkpoint], mechanism: str, cache_entries: int
) -> None:
    found, process = drill(cache_entries=cache_entries)
    options = Namespace(
        mechanism=mechanism, clients=32, swaps=20, pause_s=0.05, steady_s=0.5, warm_s=0.5,
        cache_entries=cache_entries, engine="embedded",
    )  # fmt: skip
    result = asyncio.run(run(found, pair, options, process.pid))
    assert (result["violations"], result["rules_broken"], result["refused"]) == (0, {}, [])
    assert result["swaps"] == 20
    assert result["fell_back"] == 0
    assert result["queries_answered_differently"] >= len(QUERIES) // 2
    assert result["requests"] > 200
    # Back to its level: two engines more would be 100 MB.
    assert result["resident_mb"]["steady after"] < result["resident_mb"]["steady"] + 60
    digests = {request.weights_digest for request in found.requests}
    assert digests == {checkpoint.weights_digest for checkpoint in pair}
    # The same judge, told that each answers as the other does, objects wherever the two differ.
    one, other = (checkpoint.weights_digest for checkpoint in pair)
    said = {(request.weights_digest, request.query): request.said for request in found.requests}
    crossed = {(other if digest == one else one, query): text for (digest, query), text in said.items()}
    differing = {query for query in QUERIES if said.get((one, query)) != said.get((other, query))}
    objected = violations(found.requests, found.swaps, first_digest=other, expected=crossed)
    assert len({id(found.request) for found in objected}) == sum(r.query in differing for r in found.requests)


@pytest.mark.fault(
    broken="two replicas swap while their Redis is killed (-9) and started again",
    promised="no stale answer, none lost",
)
def test_replicas_that_share_a_redis_swap_and_lose_it_without_a_stale_or_a_lost_answer(
    drill: Callable[..., Any], pair: list[Checkpoint]
) -> None:
    """Two replicas, one Redis, both swapped back and forth, Redis killed and started again under way."""
    with running_redis() as redis:
        shared = {"cache_entries": 0, "redis_url": redis.url, "redis_timeout_ms": 1000, "breaker_open_s": 0.2}
        replicas = [drill(**shared)[0] for _ in range(2)]

        async def scenario() -> tuple[dict[tuple[str, str], tuple[str, ...]], int]:
            expected = await expectations(replicas[0], pair)
            stored = len(redis.stored())
            await replicas[1].activate(pair[1], "beside")
            for replica in replicas:
                replica.requests.clear()
                replica.swaps.clear()
            stop = asyncio.Event()
            loads = [asyncio.create_task(replica.load(8, stop)) for replica in replicas]
            for number in range(6):
                await asyncio.gather(*(r.activate(pair[number % 2], "beside") for r in replicas))
                if number == 2:
                    redis.kill()
                if number == 4:
                    redis.start()
                await asyncio.sleep(0.3)
            stop.set()
            await asyncio.gather(*loads)
            return expected, stored

        expected, stored = asyncio.run(scenario())
        assert stored >= 2 * len(QUERIES)
        assert redis.stored()  # it is used again after its return
    for replica in replicas:
        first = pair[1].weights_digest
        found = violations(replica.requests, replica.swaps, first_digest=first, expected=expected)
        assert list(found) == []
        assert len(replica.swaps) == 6
        assert {request.weights_digest for request in replica.requests} == {c.weights_digest for c in pair}


def broken(folder: Path, kind: str) -> str:
    """A checkpoint that is not what it says, in the way of `kind`; returns its id."""
    name = f"broken-{kind}"
    made = make_sibling(load_checkpoint(DEFAULT_CHECKPOINT), folder / name, seed=3)
    weights = folder / name / "model.safetensors"
    match kind:
        case "corrupt":
            data = bytearray(weights.read_bytes())
            data[len(data) // 2] ^= 0xFF
            weights.write_bytes(data)
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-1000])
        case "tokenizer":  # a tokenizer of another model, and a manifest that vouches for it
            tokenizer = folder / name / "tokenizer.json"
            document = json.loads(tokenizer.read_text(encoding="utf-8"))
            vocabulary = document["model"]["vocab"]
            words = sorted(token for token in vocabulary if token.startswith("Ġ"))
            ids = [vocabulary[token] for token in words]
            vocabulary.update(zip(words, ids[1:] + ids[:1], strict=True))
            tokenizer.write_text(json.dumps(document), encoding="utf-8")
        case "zeros":  # weights of the right sizes that no trainer has seen
            data = bytearray(weights.read_bytes())
            data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
            weights.write_bytes(data)
        case "other-id":
            (folder / name).rename(folder / "moved")
            (folder / "moved").rename(folder / f"{name}-2")
            return f"{name}-2"
    if kind in {"tokenizer", "zeros"}:
        files = {file: describe_file(folder / name / file) for file in made.manifest.files}
        manifest = made.manifest.model_copy(update={"files": files})
        (folder / name / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return name


@pytest.mark.fault(
    broken="a checkpoint is corrupt, cut off, of another tokenizer, of untrained weights, of another id",
    promised="it never serves; what serves, serves on",
)
@pytest.mark.parametrize("mechanism", ["beside", "in_place"])
def test_a_checkpoint_that_is_not_what_it_says_never_serves(
    drill: Callable[..., Any], folder: Path, pair: list[Checkpoint], mechanism: str
) -> None:
    found, _ = drill(cache_entries=0)
    reasons = {
        "corrupt": "SHA-256",
        "truncated": "bytes where the manifest says",
        "tokenizer": "golden prompt",
        "zeros": "golden prompt",
        "other-id": "this is broken-other-id",
    }
    names = {kind: broken_once(folder, kind) for kind in reasons}

    async def scenario() -> dict[str, dict[str, Any]]:
        stop = asyncio.Event()
        load = asyncio.create_task(found.load(8, stop))
        said = {}
        for kind, name in names.items():
            said[kind] = await found.activate(replace(pair[0], id=name), mechanism)
        stop.set()
        await load
        return said

    said = asyncio.run(scenario())
    for kind, words in reasons.items():
        assert said[kind]["error"] == "activation_refused"
        assert said[kind]["detail"].startswith("sibling-1 serves on: "), said
        assert words in said[kind]["detail"]
    assert found.swaps == []
    assert {request.weights_digest for request in found.requests} == {pair[0].weights_digest}
    assert {request.status for request in found.requests} == {200}
    answered = {request.query: request.said for request in found.requests if request.said}
    assert len(answered) >= len(QUERIES) // 2


def broken_once(folder: Path, kind: str) -> str:
    """As `broken`, but made only once for all mechanisms."""
    for name in (f"broken-{kind}-2", f"broken-{kind}"):
        if (folder / name).exists():
            return name
    return broken(folder, kind)


def corewrite(*arguments: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / "corewrite"), "checkpoints", "activate", *arguments],
        env={**os.environ, "REWRITE_ADMIN_TOKEN": token},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.fault(
    broken="a checkpoint is asked for that is not there, or by nobody who may",
    promised="refused in a line that says why",
)
def test_the_command_activates_refuses_and_explains(
    drill: Callable[..., Any], pair: list[Checkpoint]
) -> None:
    found, _ = drill()
    url = ("--url", f"http://127.0.0.1:{found.port}")
    done = corewrite("sibling-2", *url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("sibling-2 serves (beside) after ")
    assert "6 golden prompts proven" in done.stdout
    again = corewrite("sibling-2", *url)
    assert (again.returncode, again.stdout) == (0, "sibling-2 serves already\n")
    back = corewrite("sibling-1", *url, "--mechanism", "in_place", "--json")
    answer = json.loads(back.stdout)
    assert (answer["outcome"], answer["mechanism"], answer["told_apart"]) == ("activated", "in_place", True)
    assert answer["weights_digest"] == pair[0].weights_digest
    for arguments, token, words in [
        (("nowhere",), TOKEN, "no checkpoint 'nowhere'"),
        (("../default",), TOKEN, "id"),
        (("sibling-2",), "wrong", "Bearer"),
        (("sibling-2",), "", "Bearer"),
    ]:
        refused = corewrite(*arguments, *url, token=token)
        assert refused.returncode == 2
        assert words in refused.stderr
    assert corewrite("sibling-2", "--url", "http://127.0.0.1:9").returncode == 2
    assert corewrite("sibling-2", "--url", "ftp://127.0.0.1").returncode == 2
    asked = asyncio.run(found.ask("truck hopper"))
    assert asked.weights_digest == pair[0].weights_digest
