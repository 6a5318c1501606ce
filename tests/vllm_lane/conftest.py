"""Real vLLM, on a CPU: run by `make test-vllm` in an environment of its own."""

from __future__ import annotations

import os

# vLLM reads these when it is imported.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
