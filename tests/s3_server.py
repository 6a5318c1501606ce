"""An S3-compatible server on a free port, in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ports import free_port
from s3fs import S3FileSystem
from waiting import wait_until


@contextmanager
def s3_server() -> Iterator[str]:
    """Start one; yields its endpoint."""
    # Clients are kept by their arguments, and where the server is they take from the environment.
    S3FileSystem.clear_instance_cache()
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(answers)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        S3FileSystem.clear_instance_cache()
