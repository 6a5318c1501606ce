"""As much of `vllm serve` as the openai engine meets, over a real checkpoint: python fleet.py FOLDER PORT.

It computes what the checkpoint says, so that the service can prove it; prompts are read anew for each token.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from ports import free_port

from app.engines.onnx_backend import OnnxBackend
from app.engines.text import read_tokenizer
from training.canary.processes import until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
MODEL, WINDOW = "default", 256


class Fleet:
    """Answers /v1/models and /v1/completions."""

    def __init__(self, folder: Path) -> None:
        self._backend = OnnxBackend(folder, threads=1, slots=8, max_tokens=WINDOW)
        _, self._end_id = read_tokenizer(folder)

    async def models(self, _request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": MODEL, "max_model_len": WINDOW}]})

    async def completions(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
        rows = [Row(prompt) for prompt in prompts]
        while going := [
            row for row in rows if len(row.ids) < body["max_tokens"] and self._end_id not in row.ids
        ]:
            scores = self._backend.prefill(0, [row.prompt + row.ids for row in going])
            for place, row in enumerate(going):
                row.add(scores.top(place, max(1, body["logprobs"])))
        choices = [{**row.choice(self._end_id), "index": index} for index, row in enumerate(rows)]
        return web.json_response({"choices": choices})


@dataclass
class Row:
    """A prompt, and its most probable completion so far, whatever temperature was asked for."""

    prompt: list[int]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tops: list[dict[str, float]] = field(default_factory=list)

    def add(self, top: list[tuple[int, float]]) -> None:
        self.ids.append(top[0][0])
        self.logprobs.append(top[0][1])
        self.tops.append({f"token_id:{token}": logprob for token, logprob in top})

    def choice(self, end_id: int) -> dict[str, Any]:
        told = {"token_logprobs": self.logprobs, "top_logprobs": self.tops, "tokens": [], "text_offset": []}
        finish = "stop" if self.ids[-1] == end_id else "length"
        return {"text": "never read", "token_ids": self.ids, "logprobs": told, "finish_reason": finish}


@dataclass
class FleetProcess:
    """One fleet as a process; `start` and `kill` may alternate, the port stays."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
        command = [sys.executable, __file__, str(self.folder), str(self.port)]
        self.process = subprocess.Popen(command, env=environment)
        until(self._answers, self.process)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def running_fleet(folder: Path) -> Iterator[FleetProcess]:
    fleet = FleetProcess(folder)
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.kill()


if __name__ == "__main__":
    app, fleet = web.Application(), Fleet(Path(sys.argv[1]))
    app.router.add_get("/v1/models", fleet.models)
    app.router.add_post("/v1/completions", fleet.completions)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]), print=None)
