"""The embedded engine's arithmetic on ONNX Runtime: scores, and the cache of keys and values in slots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from app.engines.qwen3_files import read_config, read_weights
from app.engines.qwen3_onnx import build_graph
from app.engines.scores import Scores, TokenIds
from app.errors import CheckpointError
from app.onnx_options import session_options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_BINDINGS = 512


class OnnxBackend:
    """A decoder over `slots` rows of at most `max_tokens` tokens each (`batch.Backend`).

    Cached keys and values take layers x 2 x slots x kv_heads x max_tokens x head_dim x 4 bytes, allocated
    once; the graph reads and writes them in place. Not thread-safe: one thread calls.
    `best` is how many of a row's tokens `Scores` finds beforehand.
    Raises `CheckpointError` where the checkpoint cannot be read or is too small for `max_tokens`.
    """

    def __init__(
        self, checkpoint_dir: Path, *, threads: int, slots: int, max_tokens: int, best: int = 8
    ) -> None:
        config = read_config(checkpoint_dir)
        if max_tokens > config.max_position_embeddings:
            raise CheckpointError(
                f"{checkpoint_dir}: the model reads {config.max_position_embeddings} tokens, not {max_tokens}"
            )
        self.vocab_size = config.vocab_size
        options = session_options(threads=threads)
        best = min(best, config.vocab_size)
        graph, weights = build_graph(config, read_weights(checkpoint_dir), max_tokens=max_tokens, best=best)
        tensors = [ort.OrtValue.ortvalue_from_numpy(weight) for weight in weights.values()]
        options.add_external_initializers(list(weights), tensors)
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._cache = np.zeros(
            (2 * config.num_hidden_layers, slots, config.num_key_value_heads, max_tokens, config.head_dim),
            np.float32,
        )
        self._token_ids = np.zeros(slots * max_tokens, np.int64)
        self._last = np.zeros((slots, 1), np.int64)
        self._last_index = np.zeros(slots, np.int32)
        self._total_length = np.zeros((), np.int32)
        self._scores = Scores(
            logprobs=np.zeros((slots, config.vocab_size), np.float32),
            best_ids=np.zeros((slots, best), np.int64),
            best=np.zeros((slots, best), np.float32),
            rows=range(slots),
        )
        self._bindings: dict[tuple[int, int, int], Any] = {}

    def prefill(self, first_slot: int, prompts: Sequence[Sequence[int]]) -> Scores:
        """Read prompts into consecutive slots; returns the scores of each one's next token.

        They are padded to the longest. The arrays are reused by the next call.
        """
        rows, counts = len(prompts), np.array([len(prompt) for prompt in prompts])
        tokens = int(counts.max())
        token_ids = self._tokens(rows, tokens)
        token_ids[:] = 0
        for row, prompt in zip(token_ids, prompts, strict=True):
            row[: len(prompt)] = prompt
        self._last[:rows, 0] = self._last_index[:rows] = counts - 1
        self._total_length[...] = tokens
        return self._run(first_slot, rows, tokens)

    def decode(self, token_ids: Sequence[int], lengths: Sequence[int]) -> Scores:
        """Append `token_ids[i]` to slot i, which holds `lengths[i]` tokens; returns the next ones' scores.

        The arrays are reused by the next call.
        """
        rows = len(token_ids)
        self._tokens(rows, 1)[:, 0] = token_ids
        self._last[:rows] = 0
        self._last_index[:rows] = lengths
        self._total_length[...] = max(lengths) + 1
        return self._run(0, rows, 1)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of slot `source` to slot `target`."""
        self._cache[:, target, :, :length] = self._cache[:, source, :, :length]

    def _tokens(self, rows: int, tokens: int) -> TokenIds:
        return self._token_ids[: rows * tokens].reshape(rows, tokens)

    def _run(self, first_slot: int, rows: int, tokens: int) -> Scores:
        """Run the graph over consecutive slots; to bind it takes a third of a run, so that is kept."""
        key = (first_slot, rows, tokens)
        if key not in self._bindings:
            if len(self._bindings) == MAX_BINDINGS:
                self._bindings.clear()
            self._bindings[key] = self._bind(*key)
        self._session.run_with_iobinding(self._bindings[key])
        return self._scores.take(range(rows))

    def _bind(self, first_slot: int, rows: int, tokens: int) -> Any:
        """Bind the graph to views of the buffers: no copy goes in or out."""
        binding = self._session.io_binding()

        def give(bind: Any, name: str, view: npt.NDArray[Any]) -> None:
            bind(name, "cpu", 0, view.dtype.type, view.shape, view.ctypes.data)

        give(binding.bind_input, "input_ids", self._tokens(rows, tokens))
        give(binding.bind_input, "seqlens_k", self._last_index[:rows])
        give(binding.bind_input, "total_length", self._total_length)
        give(binding.bind_input, "last", self._last[:rows])
        for name in ("logprobs", "best_ids", "best"):
            give(binding.bind_output, name, getattr(self._scores, name)[:rows])
        for i, cached in enumerate(self._cache[:, first_slot : first_slot + rows]):
            name = f"{i // 2}_{('key', 'value')[i % 2]}"
            give(binding.bind_input, f"past_{name}", cached)
            give(binding.bind_output, f"present_{name}", cached)
        return binding
