"""The embedded engine's arithmetic on ONNX Runtime: logits, and the cache of keys and values in slots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from app.engines.qwen3_files import read_config, read_weights
from app.engines.qwen3_onnx import build_graph
from app.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Logits = npt.NDArray[np.float32]


class OnnxBackend:
    """A decoder over `slots` rows of at most `max_tokens` tokens each (`batch.Backend`).

    Cached keys and values take layers x 2 x slots x kv_heads x max_tokens x head_dim x 4 bytes, allocated
    once; the graph reads and writes them in place. Not thread-safe: one thread calls.
    Raises `CheckpointError` where the checkpoint cannot be read or is too small for `max_tokens`.
    """

    def __init__(self, checkpoint_dir: Path, *, threads: int, slots: int, max_tokens: int) -> None:
        config = read_config(checkpoint_dir)
        if max_tokens > config.max_position_embeddings:
            raise CheckpointError(
                f"{checkpoint_dir}: the model reads {config.max_position_embeddings} tokens, not {max_tokens}"
            )
        self.vocab_size = config.vocab_size
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads may spin within a run, not between runs: an idle engine must not burn a core.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 3
        graph = build_graph(config, read_weights(checkpoint_dir), max_tokens=max_tokens)
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._cache = np.zeros(
            (2 * config.num_hidden_layers, slots, config.num_key_value_heads, max_tokens, config.head_dim),
            np.float32,
        )
        self._token_ids = np.zeros((slots, 1), np.int64)
        self._last_of_one = np.zeros((slots, 1), np.int64)
        self._last_index = np.zeros(slots, np.int32)
        self._total_length = np.zeros((), np.int32)
        self._logits = np.zeros((slots, config.vocab_size), np.float32)
        self._decode_bindings: dict[int, Any] = {}

    def prefill(self, first_slot: int, prompts: Sequence[Sequence[int]]) -> Logits:
        """Read prompts into consecutive slots; returns the next token's logits, [prompts, vocab].

        They are padded to the longest. The array is reused by the next call.
        """
        rows = len(prompts)
        counts = np.array([len(prompt) for prompt in prompts])
        token_ids = np.zeros((rows, counts.max()), np.int64)
        for row, prompt in zip(token_ids, prompts, strict=True):
            row[: len(prompt)] = prompt
        last = (counts - 1)[:, None]
        self._last_index[:rows] = counts - 1
        self._total_length[...] = counts.max()
        binding = self._bind(slice(first_slot, first_slot + rows), token_ids, last)
        self._session.run_with_iobinding(binding)
        return self._logits[:rows]

    def decode(self, token_ids: Sequence[int], lengths: Sequence[int]) -> Logits:
        """Append `token_ids[i]` to slot i, which holds `lengths[i]` tokens; returns logits, [rows, vocab].

        The array is reused by the next call.
        """
        rows = len(token_ids)
        self._token_ids[:rows, 0] = token_ids
        self._last_index[:rows] = lengths
        self._total_length[...] = max(lengths) + 1
        if rows not in self._decode_bindings:
            self._decode_bindings[rows] = self._bind(
                slice(0, rows), self._token_ids[:rows], self._last_of_one[:rows]
            )
        self._session.run_with_iobinding(self._decode_bindings[rows])
        return self._logits[:rows]

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of slot `source` to slot `target`."""
        self._cache[:, target, :, :length] = self._cache[:, source, :, :length]

    def _bind(self, slots: slice, token_ids: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> Any:
        """Bind the graph to views of the buffers: no copy goes in or out."""
        binding = self._session.io_binding()

        def give(bind: Any, name: str, view: npt.NDArray[Any]) -> None:
            bind(name, "cpu", 0, view.dtype.type, view.shape, view.ctypes.data)

        rows = len(token_ids)
        give(binding.bind_input, "input_ids", token_ids)
        give(binding.bind_input, "seqlens_k", self._last_index[:rows])
        give(binding.bind_input, "total_length", self._total_length)
        give(binding.bind_input, "last", last)
        give(binding.bind_output, "logits", self._logits[:rows])
        for i, cached in enumerate(self._cache[:, slots]):
            name = f"{i // 2}_{('key', 'value')[i % 2]}"
            give(binding.bind_input, f"past_{name}", cached)
            give(binding.bind_output, f"present_{name}", cached)
        return binding
