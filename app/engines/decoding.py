"""Decoding rules: from the scores of a request's rows to its next tokens. Pure: numbers in, a choice out.

A decoder owns the hypotheses of one request. `advance` takes the scores of its rows and returns the rows that
go on, each as (row it continues, token it appends); the next call's rows are those, in that order. The first
call has one row, the prompt's. An empty answer means the request is done: `results` has it.

Log-probabilities are natural, at temperature 1, over the whole vocabulary, the end token included.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from app.engines.base import Finish, GenerationRequest
    from app.engines.scores import Scores

Continuation = tuple[int, int]

MASK_64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished completion; `token_ids` ends with the end token where `finish` is "stop"."""

    token_ids: tuple[int, ...]
    logprob: float
    finish: Finish


class Decoder(Protocol):
    """One request's rule and state."""

    def advance(self, scores: Scores) -> list[Continuation]:
        """Take one step."""

    def results(self) -> list[Hypothesis]:
        """The finished hypotheses, best first."""


def make_decoder(request: GenerationRequest, *, end_id: int, beam_width: int) -> Decoder:
    """The decoder a request asks for; raises `ValueError` for parameters outside their range."""
    if request.max_tokens < 1 or request.num_completions < 1:
        raise ValueError("max_tokens and num_completions must be at least 1")
    match request.mode:
        case "greedy":
            return Greedy(end_id=end_id, max_tokens=request.max_tokens)
        case "beam":
            width = rows_needed(request, beam_width=beam_width)
            return Beam(
                width=width, best=request.num_completions, end_id=end_id, max_tokens=request.max_tokens
            )
        case "sample":
            return Sample(request, end_id=end_id)


def rows_needed(request: GenerationRequest, *, beam_width: int) -> int:
    """The most rows of the batch the request can take at once."""
    match request.mode:
        case "greedy":
            return 1
        case "beam":
            return max(request.num_completions, beam_width)
        case "sample":
            return request.num_completions


def candidates(beam_width: int) -> int:
    """How many of the best continuations a beam looks at: half of them may end."""
    return 2 * beam_width


class Greedy:
    """The most probable token at each step; the lowest id wins a tie."""

    def __init__(self, *, end_id: int, max_tokens: int) -> None:
        self._end_id, self._max_tokens = end_id, max_tokens
        self._token_ids: list[int] = []
        self._logprob = 0.0
        self._finish: Finish = "length"

    def advance(self, scores: Scores) -> list[Continuation]:
        """Take one step."""
        ((token, logprob),) = scores.top(0, 1)
        self._logprob += logprob
        self._token_ids.append(token)
        if token == self._end_id:
            self._finish = "stop"
            return []
        return [(0, token)] if len(self._token_ids) < self._max_tokens else []

    def results(self) -> list[Hypothesis]:
        """The one completion."""
        return [Hypothesis(tuple(self._token_ids), self._logprob, self._finish)]


class Beam:
    """Beam search of `width` rows for the `best` hypotheses by total log-probability.

    No length penalty: the total is what the reward and the confidence read, and a penalty would make the
    order disagree with it. A candidate that ends counts only among the step's `width` best; the others go on.
    A total only falls as tokens are added, so a row at or below the last of `best` finished hypotheses is
    dropped, and the search ends when no row is left: this changes no answer. Hypotheses cut at `max_tokens`
    compete with the finished ones.
    """

    def __init__(self, *, width: int, best: int, end_id: int, max_tokens: int) -> None:
        self._width, self._best = width, best
        self._end_id, self._max_tokens = end_id, max_tokens
        self._rows: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        self._finished: list[Hypothesis] = []
        self._step = 0

    @property
    def candidates(self) -> int:
        """How many of a step's best continuations are looked at: of each row no more can matter."""
        return candidates(self._width)

    def advance(self, scores: Scores) -> list[Continuation]:
        """Take one step."""
        return self._extend([scores.top(row, self.candidates) for row in range(len(scores))])

    def advance_sparse(self, found: Sequence[Mapping[int, float]]) -> list[Continuation]:
        """Take one step from the log-probabilities of each row's best `candidates` tokens at least.

        For engines that keep their scores to themselves.
        """
        return self._extend([tokens.items() for tokens in found])

    def _extend(self, found: Sequence[Iterable[tuple[int, float]]]) -> list[Continuation]:
        self._step += 1
        # Negative, so that the smallest are the best, and of equal totals the lower row and token.
        negatives = [
            (-(score + logprob), row, token)
            for row, ((score, _), tokens) in enumerate(zip(self._rows, found, strict=True))
            for token, logprob in tokens
        ]
        going_on: list[tuple[float, int, int]] = []
        for rank, (negative, row, token) in enumerate(sorted(negatives)[: self.candidates]):
            total = -negative
            if token == self._end_id or self._step == self._max_tokens:
                if rank < self._width:
                    finish: Finish = "stop" if token == self._end_id else "length"
                    token_ids = (*self._rows[row][1], token)
                    self._finished.append(Hypothesis(token_ids, total, finish))
            elif len(going_on) < self._width:
                going_on.append((total, row, token))
        self._finished = sorted(self._finished, key=lambda h: -h.logprob)[: self._best]
        if len(self._finished) == self._best:
            worst = self._finished[-1].logprob
            going_on = [candidate for candidate in going_on if candidate[0] > worst]
        self._rows = [(total, (*self._rows[row][1], token)) for total, row, token in going_on]
        return [(row, token) for _, row, token in going_on]

    def results(self) -> list[Hypothesis]:
        """The `best` hypotheses; fewer only where the vocabulary is smaller than that."""
        return list(self._finished)


class Sample:
    """Independent draws at a temperature from the nucleus of probability `top_p`.

    The random number of a draw is `uniform` of (seed, completion index, step) (Philox, a counter-based
    generator), so it cannot depend on what else is in the batch. The nucleus is the smallest set of most
    probable tokens whose probability at that temperature reaches `top_p`.
    """

    def __init__(self, request: GenerationRequest, *, end_id: int) -> None:
        if request.temperature <= 0 or not 0 < request.top_p <= 1:
            raise ValueError("temperature must be above 0, and top_p above 0 and at most 1")
        self._request, self._end_id = request, end_id
        count = request.num_completions
        self._token_ids: list[list[int]] = [[] for _ in range(count)]
        self._logprobs = [0.0] * count
        self._running = list(range(count))

    def advance(self, scores: Scores) -> list[Continuation]:
        """Take one step. The first draws every completion from the prompt's one row."""
        first = not self._token_ids[0]
        continuations: list[Continuation] = []
        running: list[int] = []
        for i, index in enumerate(self._running):
            row = 0 if first else i
            logprobs = scores.all(row)
            token_ids = self._token_ids[index]
            token = self._draw(logprobs, index, step=len(token_ids))
            token_ids.append(token)
            self._logprobs[index] += float(logprobs[token])
            if token != self._end_id and len(token_ids) < self._request.max_tokens:
                running.append(index)
                continuations.append((row, token))
        self._running = running
        return continuations

    def _draw(self, logprobs: npt.NDArray[np.float64], index: int, *, step: int) -> int:
        number = uniform(self._request.seed, index, step)
        heat = logprobs / self._request.temperature
        weights = np.exp(heat - heat.max())
        order = np.arange(len(weights))
        if self._request.top_p < 1:
            order = np.argsort(-weights, kind="stable")
            mass = np.cumsum(weights[order])
            order = order[: int(np.searchsorted(mass, self._request.top_p * mass[-1])) + 1]
        mass = np.cumsum(weights[order])
        drawn = int(np.searchsorted(mass, number * mass[-1], side="right"))
        return int(order[min(drawn, len(order) - 1)])

    def results(self) -> list[Hypothesis]:
        """All completions, the most probable first; equal ones in the order of their index."""
        hypotheses = [
            Hypothesis(tuple(ids), logprob, "stop" if ids[-1] == self._end_id else "length")
            for ids, logprob in zip(self._token_ids, self._logprobs, strict=True)
        ]
        return sorted(hypotheses, key=lambda h: -h.logprob)


def uniform(seed: int, index: int, step: int) -> float:
    """The random number in [0, 1) of a step of a completion of a request."""
    bits = np.random.Philox(key=(seed & MASK_64) | index << 64, counter=step)
    return float(np.random.Generator(bits).random())


def spread(seed: int) -> int:
    """A seed far from those of other numbers: vLLM seeds the i-th of `n` completions with `seed + i`."""
    return int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:7], "big")
