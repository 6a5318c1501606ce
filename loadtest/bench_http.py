"""What the request path costs: a cache hit end to end, against bare FastAPI routes, same server settings.

    python loadtest/bench_http.py --json OUT.json

Four servers run in processes of their own and are measured in turn, round after round, over connections that
are kept open: the service with its log, the service without, a FastAPI route that returns a constant dict of
the same size, and one that returns it as ready bytes. Clients are closed-loop. Read the ratios, which are
medians over rounds of the ratio within a round.
"""

# ruff: noqa: T201 - it prints its result

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

BODY = json.dumps({"query": "registerd nurse"}).encode()
REQUEST = (
    b"POST /v1/rewrite HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    b"content-length: " + str(len(BODY)).encode() + b"\r\n\r\n" + BODY
)
SERVERS = ("service", "service, no log", "bare dict", "bare bytes")
BASELINE = "bare dict"


def serve_bare(kind: str, answer: dict[str, Any], port: int) -> None:
    """Serve `answer` from a route that does nothing, with the settings of app/http/server.py."""
    import uvicorn  # noqa: PLC0415 - the measuring process needs none of these
    from fastapi import FastAPI  # noqa: PLC0415
    from starlette.responses import Response  # noqa: PLC0415

    app, ready = FastAPI(), json.dumps(answer).encode()

    @app.post("/v1/rewrite", response_model=None)
    async def route() -> dict[str, Any] | Response:
        return Response(ready, media_type="application/json") if kind == "bare bytes" else answer

    uvicorn.run(app, port=port, log_config=None, access_log=False, server_header=False, timeout_keep_alive=75)


def start(name: str, port: int, answer: str) -> subprocess.Popen[bytes]:
    """Start a server process."""
    if name.startswith("service"):
        log = "error" if "no log" in name else "info"
        command = [str(Path(sys.executable).parent / "corewrite"), "serve", "--port", str(port)]
        environment = os.environ | {"REWRITE_LOG_LEVEL": log, "REWRITE_DEADLINE_MS": "20000"}
    else:
        command = [sys.executable, __file__, "--bare", name, "--port", str(port), "--answer", answer]
        environment = dict(os.environ)
    return subprocess.Popen(  # noqa: S603 - this project's own commands
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


async def drive(port: int, connections: int, seconds: float) -> float:
    """Return requests per second of closed-loop clients, one a connection."""
    until = time.perf_counter() + seconds

    async def client() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        done = 0
        while time.perf_counter() < until:
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
            length = head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]
            await reader.readexactly(int(length))
            done += 1
        writer.close()
        return done

    began = time.perf_counter()
    counts = await asyncio.gather(*(client() for _ in range(connections)))
    return sum(counts) / (time.perf_counter() - began)


def ask(port: int) -> bytes:
    """Return one answer, as soon as the server gives one."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/rewrite", BODY, {"content-type": "application/json"}
    )
    for _ in range(600):
        try:
            with urllib.request.urlopen(request) as response:  # noqa: S310 - as above
                answer: bytes = response.read()
                return answer
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"nothing answers on port {port}")


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start all servers, warm them, and measure them in turn."""
    ports = {name: free_port() for name in SERVERS}
    with ExitStack() as stack:

        def run(name: str, answer: str = "") -> None:
            process = stack.enter_context(start(name, ports[name], answer))
            stack.callback(process.terminate)

        run("service")
        answer = ask(ports["service"]).decode()
        for name in SERVERS[1:]:
            run(name, answer)
        for name in SERVERS:
            ask(ports[name])
            asyncio.run(drive(ports[name], options.connections, 1.0))
        rates: dict[str, list[float]] = {name: [] for name in SERVERS}
        for number in range(options.rounds):
            for name in SERVERS if number % 2 == 0 else reversed(SERVERS):
                rates[name].append(asyncio.run(drive(ports[name], options.connections, options.seconds)))
    return {
        "connections": options.connections,
        "answer_bytes": len(answer),
        "rows": [
            {
                "server": name,
                "requests_per_s": round(statistics.median(found), 1),
                "to_bare_dict": round(
                    statistics.median(a / b for a, b in zip(found, rates[BASELINE], strict=True)), 3
                ),
            }
            for name, found in rates.items()
        ],
    }


def main() -> None:
    """Measure and print, or be one of the bare servers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each server in each round")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--bare", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--answer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        serve_bare(options.bare, json.loads(options.answer), options.port)
        return
    result = measure(options)
    print("| server | requests/s | to bare dict |\n|---|---|---|")
    for row in result["rows"]:
        print(f"| {row['server']} | {row['requests_per_s']} | {row['to_bare_dict']:.2f} |")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
