"""Small disks, and how to fill them."""

from __future__ import annotations

import itertools
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MB = 1 << 20


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes and a hundred files, at `folder`."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes=100", "none", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte, and room for no file; return the folder that takes it."""
    filler = folder / "filler"
    filler.mkdir()
    with (filler / "bytes").open("wb", buffering=0) as stream:
        for size in (MB, 4096, 1):
            try:
                while True:
                    stream.write(bytes(size))
            except OSError:
                continue
    with suppress(OSError):
        for number in itertools.count():
            (filler / str(number)).touch()
    return filler
