"""Fuzzing over the socket: python tests/fuzz/campaign.py --requests 1000000

Sends requests of tests/fuzz/mutations.py to a process of the service and judges every answer: a status that
the OpenAPI document or this file names, errors in the one JSON shape, the original byte-identical, nothing
unexpected in the log, memory bounded, and good requests answered all along. It goes on where it was stopped;
`--only N` sends one request again and shows it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from mutations import TOKEN, Corpus, Made, corpus_of, make  # noqa: E402 -- after the path
from ports import free_port  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULTS = HERE.parents[1] / "results" / "fuzz"
# What any request may get, whatever the document says of its route.
ANYWHERE = {400, 401, 403, 404, 405, 408, 413, 414, 429, 431, 503}
CONNECTIONS = 16
BLOCK = 5000
RAW_WAIT_S = 0.05  # a request that is cut off is answered when its sender stops, or not at all
ANSWER_WAIT_S = 30.0
MAX_GROWTH_MB = 128.0
MAX_FINDINGS = 50
_GOOD = b'{"query": "good rn icu nights"}'
GOOD = b"POST /v1/rewrite HTTP/1.1\r\nhost: fuzz\r\ncontent-length: %d\r\n\r\n%s" % (len(_GOOD), _GOOD)


@dataclass
class State:
    """What is known so far; kept after each block."""

    seed: int
    corpus: int = 0
    sent: int = 0
    seconds: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    memory_mb: list[float] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Service:
    """The process that is fuzzed."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def memory_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def complaints(self) -> list[str]:
        """Lines of the log that no request should cause."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if '"level": "error"' in line or not line.startswith('{"time"')]


def environment(folder: Path, port: int) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("REWRITE_")}
    asked = {
        "port": port,
        "rollouts": f"sqlite:///{folder}/rollouts.db",
        "registry": folder / "registry",
        "admin_token": TOKEN,
        "max_token_failures": 1_000_000_000,  # or nothing behind it would be reached
        "cache_entries": 1000,
        "log_level": "warning",
        "body_timeout_s": 2,
        "header_timeout_s": 2,
    }
    path = f"{HERE.parents[1]}{os.pathsep}{HERE.parent}"
    return {
        **own,
        "PYTHONPATH": path,
        **{f"REWRITE_{name.upper()}": str(value) for name, value in asked.items()},
    }


@contextmanager
def service() -> Iterator[tuple[Service, dict[str, Any]]]:
    """A running one, and its OpenAPI document."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        log = folder / "log"
        command = [sys.executable, str(HERE / "fuzzed.py")]
        surroundings = environment(folder, port)
        document = subprocess.run(
            [*command, "--document"], env=surroundings, capture_output=True, check=True
        ).stdout
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=surroundings, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield Service(process, port, log), json.loads(document)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Client:
    """One connection, opened again when it is closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, data: bytes, *, head_only: bool = False) -> tuple[int, bytes]:
        """Status and body of the answer to a whole request; sent again where the connection had ended."""
        for attempt in (1, 2):
            fresh = self._streams is None
            try:
                return await asyncio.wait_for(self._exchange(data, head_only=head_only), ANSWER_WAIT_S)
            except (ConnectionError, asyncio.IncompleteReadError):
                await self.close()
                if fresh or attempt == 2:
                    raise
        raise AssertionError

    async def shout(self, data: bytes) -> list[int]:
        """Statuses of whatever is answered to bytes that need be no request, on a connection of their own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        received = b""
        try:
            writer.write(data)
            try:
                while chunk := await asyncio.wait_for(reader.read(65536), RAW_WAIT_S):
                    received += chunk
            except TimeoutError:
                pass
        except ConnectionError:
            pass
        finally:
            await end(writer)
        return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]

    async def close(self) -> None:
        if self._streams is not None:
            (_, writer), self._streams = self._streams, None
            await end(writer)

    async def _exchange(self, data: bytes, *, head_only: bool) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(data)
        status = 100
        while status == HTTPStatus.CONTINUE:
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        length = 0 if head_only else int(headers.get(b"content-length", b"0"))
        body = await reader.readexactly(length)
        if headers.get(b"connection") == b"close":
            await self.close()
        return status, body


async def end(writer: asyncio.StreamWriter) -> None:
    """End a connection, whatever is on its way."""
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()


def wrong_with(  # noqa: PLR0911 -- one return for each thing that may be wrong
    made: Made, status: int, body: bytes, documented: dict[str, set[int]]
) -> str | None:
    """Why this is no answer to that request, or None."""
    allowed = documented.get(f"{made.method} {made.path}", set()) | ANYWHERE
    if status not in allowed:
        return f"status {status}"
    if made.method == "HEAD":
        return None
    if status >= HTTPStatus.BAD_REQUEST:
        if made.path == "/readyz":
            return None
        told = json.loads(body)
        shape = isinstance(told, dict) and set(told) == {"error", "detail"}
        return (
            None
            if shape and all(isinstance(text, str) for text in told.values())
            else "not the one error shape"
        )
    if made.path == "/v1/rewrite" and status == HTTPStatus.OK:
        asked, answer = json.loads(made.body)["query"], json.loads(body)
        if answer["original"] != asked:
            return "another original"
        if bool(answer["rewrites"]) is answer["degraded"]:
            return "neither rewritten nor degraded"
    return None


async def run_block(
    service: Service, corpus: Corpus, state: State, many: int, documented: dict[str, set[int]]
) -> None:
    """Send the next requests and note what becomes of them."""
    numbers = iter(range(state.sent, state.sent + many))
    statuses, kinds = Counter(state.statuses), Counter(state.kinds)

    async def work() -> None:
        client = Client(service.port)
        for number in numbers:
            made = make(corpus, state.seed, number)
            kinds[made.kind] += 1
            try:
                why = await judge(client, made)
            except Exception as error:  # noqa: BLE001 -- no answer, one that is none, a process that is gone
                why = f"{type(error).__name__}: {error}"
                await client.close()
            if why is not None and len(state.findings) < MAX_FINDINGS:
                state.findings.append({"number": number, "why": why, "request": repr(made.data[:500])})
        await client.close()

    async def judge(client: Client, made: Made) -> str | None:
        if made.kind == "raw":
            for status in await client.shout(made.data) or [0]:
                statuses[str(status) if status else "no answer"] += 1
                if status not in ANYWHERE | {0, 100, 200, 409, 422}:
                    return f"status {status}"
            return None
        status, body = await client.ask(made.data, head_only=made.method == "HEAD")
        statuses[str(status)] += 1
        return wrong_with(made, status, body, documented)

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    good = Client(service.port)
    status, _ = await good.ask(GOOD)
    await good.close()
    if status != HTTPStatus.OK:
        state.findings.append(
            {"number": state.sent + many, "why": f"a good request got {status}", "request": ""}
        )
    state.statuses, state.kinds = dict(sorted(statuses.items())), dict(sorted(kinds.items()))


def campaign(state: State, requests: int, *, keep: Path | None = None) -> State:
    """Bring `state` to so many requests."""
    with service() as (served, document):
        asyncio.run(wait_for(served))
        corpus = corpus_of(document, state.seed)
        state.corpus = sum(len(requests) for requests in corpus.values())
        documented = {
            f"{method.upper()} {path}": {int(status) for status in operation["responses"]} | {200}
            for path, item in document["paths"].items()
            for method, operation in item.items()
        }
        while state.sent < requests:
            many = min(BLOCK, requests - state.sent)
            began = time.monotonic()
            asyncio.run(run_block(served, corpus, state, many, documented))
            state.seconds += time.monotonic() - began
            state.sent += many
            state.memory_mb.append(round(served.memory_mb(), 1))
            if keep is not None:
                keep.write_text(json.dumps(asdict(state), indent=1) + "\n", encoding="utf-8")
                sys.stderr.write(f"{state.sent} sent, {len(state.findings)} findings\n")
        settled = len(state.memory_mb) // 10
        grown = state.memory_mb[-1] - state.memory_mb[settled]
        if grown > MAX_GROWTH_MB:
            state.findings.append(
                {"number": state.sent, "why": f"memory grew by {grown:.0f} MB", "request": ""}
            )
        state.findings += [{"number": -1, "why": "log", "request": line} for line in served.complaints()[:20]]
    return state


async def wait_for(served: Service) -> None:
    """Until it is ready."""
    for _ in range(600):
        client = Client(served.port)
        try:
            status, _ = await client.ask(b"GET /readyz HTTP/1.1\r\nhost: fuzz\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        await client.close()
        if status == HTTPStatus.OK:
            return
        if served.process.poll() is not None:
            break
        await asyncio.sleep(0.1)
    raise RuntimeError(served.log.read_text(encoding="utf-8"))


def page(state: State) -> str:
    """The result, for a reader."""
    memory = f"{state.memory_mb[0]:.0f} MB after the first block, {state.memory_mb[-1]:.0f} MB at the end"
    made = f"made of {state.corpus} valid ones"
    lines = [
        "# Fuzzing",
        "",
        "`make fuzz` wrote this page (tests/fuzz/campaign.py says what is sent and what an answer must be).",
        "",
        f"{state.sent:,} requests, seed {state.seed}, {made}; {state.seconds:.0f} s;",
        f"{memory}.",
        "",
        f"**Findings: {len(state.findings)}**",
        "",
        *(f"- {one['number']}: {one['why']}: `{one['request'][:300]}`" for one in state.findings),
        "" if state.findings else None,
        "| requests | |",
        "|---|---:|",
        *(f"| {kind} | {number:,} |" for kind, number in state.kinds.items()),
        "",
        "| answers | |",
        "|---|---:|",
        *(f"| {status} | {number:,} |" for status, number in state.statuses.items()),
        "",
        "raw: the bytes of the request itself are changed, so that it may have several answers or none.",
    ]
    return "\n".join(line for line in lines if line is not None) + "\n"


def main() -> int:
    """Run, or go on, and write the page."""
    parser = argparse.ArgumentParser(description="Fuzz the service over a socket.")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", type=int, metavar="N", help="send this one alone and show it")
    options = parser.parse_args()
    if options.only is not None:
        state = State(options.seed, sent=options.only)
        campaign(state, options.only + 1)
        sys.stdout.write(json.dumps(asdict(state), indent=1) + "\n")
        return 1 if state.findings else 0
    options.out.mkdir(parents=True, exist_ok=True)
    keep = options.out / "fuzz.json"
    state = State(options.seed)
    if keep.exists():
        known = State(**json.loads(keep.read_text(encoding="utf-8")))
        state = known if known.seed == options.seed and known.sent < options.requests else state
    campaign(state, options.requests, keep=keep)
    keep.write_text(json.dumps(asdict(state), indent=1) + "\n", encoding="utf-8")
    (options.out / "README.md").write_text(page(state), encoding="utf-8")
    sys.stdout.write(page(state))
    return 1 if state.findings else 0


if __name__ == "__main__":
    sys.exit(main())
