"""What a server under test takes of the machine, all its processes together, as Linux tells in /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def cpu_s(pid: int) -> float:
    """Processor seconds of a process and its children so far."""
    return sum(map(_cpu_ticks, _tree(pid))) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Resident memory of a process and its children, MB of 10^6 bytes; one that ends meanwhile has none."""
    pages = 0
    for folder in _tree(pid):
        try:
            pages += int((folder / "statm").read_text(encoding="ascii").split()[1])
        except OSError:
            continue
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def _tree(pid: int) -> Iterator[Path]:
    """The folders in /proc of a process and of all it has started, itself first."""
    pids = [pid]
    while pids:
        folder = Path("/proc", str(pids.pop()))
        yield folder
        try:
            for task in (folder / "task").iterdir():
                pids += map(int, (task / "children").read_text(encoding="ascii").split())
        except OSError:  # it has ended meanwhile
            continue


def main_thread_cpu_s(pid: int) -> float:
    """Processor seconds of a process's first thread so far: in the service, the event loop."""
    return _cpu_ticks(Path("/proc", str(pid), "task", str(pid))) / os.sysconf("SC_CLK_TCK")


def _cpu_ticks(folder: Path) -> int:
    # The second field, in brackets, is the name, which may hold spaces and brackets.
    fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
