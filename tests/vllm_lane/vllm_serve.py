"""A real `vllm serve`, started as an operator would, on a port of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

START_S = 300.0  # on two busy cores it takes 40 to 90 s


class VllmServe:
    """`vllm serve` with the model `name`, and everything it logs in `log`."""

    def __init__(self, checkpoint_dir: Path, *options: str, name: str, port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        self._command = [
            *(str(Path(sys.executable).with_name("vllm")), "serve", str(checkpoint_dir)),
            *("--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)),
            *("--dtype", "float32", "--enforce-eager", "--max-model-len", "256"),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it is healthy."""
        environment = os.environ | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # so that one signal reaches the processes it starts too
            )
        end = time.monotonic() + START_S
        while not self._healthy():
            assert self._process.poll() is None, f"vllm serve ended:\n{self.tail()}"
            assert time.monotonic() < end, f"vllm serve does not get healthy:\n{self.tail()}"
            time.sleep(0.2)

    def kill(self) -> None:
        """End it and all of its processes at once, as a lost machine would."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all series of a metric that carry these labels, as /metrics says."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        series = [line for line in lines if line.startswith(name + "{") and all(w in line for w in wanted)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in series)

    def tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-40:])

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@contextmanager
def vllm_serve(checkpoint_dir: Path, *options: str, name: str, port: int, log: Path) -> Iterator[VllmServe]:
    """Start one, with further `options`, and be sure that nothing is left of it."""
    server = VllmServe(checkpoint_dir, *options, name=name, port=port, log=log)
    try:
        server.start()
        yield server
    finally:
        server.kill()
