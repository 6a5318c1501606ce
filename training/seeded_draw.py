"""Sampling inside transformers' `generate` whose draws do not depend on the batch.

`generate` draws all rows from one random stream: what a row gets depends on those beside it. Here each row
has the random numbers of `app.engines.decoding.Sample`, so equal requests get the draws of the embedded
engine, as far as the two compute equal probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

from app.engines.base import Finish, GenerationRequest
from app.engines.decoding import Hypothesis, rows_needed, uniform


class SeededDraw(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Chooses the next token of every row, and leaves `generate` no other.

    Args:
        requests: whose completions the rows are, all but prompt and seed alike: for each its
            `rows_of` it, one after the other. "greedy" takes the most probable token.
        end_id: the end token.
    """

    def __init__(self, requests: Sequence[GenerationRequest], *, end_id: int) -> None:
        self._how = requests[0]
        self._rows = rows_of(requests[0])
        self._draws = [(one.seed, index) for one in requests for index in range(self._rows)]
        self._end_id = end_id
        self._token_ids: list[torch.Tensor] = []
        self._logprobs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - theirs
        """Return the scores, [rows, vocab], with the token drawn for each row alone above -inf."""
        logprobs = scores.double().log_softmax(-1)
        drawn = logprobs.argmax(-1, keepdim=True) if self._how.mode == "greedy" else self._draw(logprobs)
        self._token_ids.append(drawn[:, 0])
        self._logprobs.append(logprobs.gather(1, drawn)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)

    def hypotheses(self) -> list[list[Hypothesis]]:
        """The completions of each request, the most probable first."""
        token_ids = torch.stack(self._token_ids, 1).tolist()
        logprobs = torch.stack(self._logprobs, 1).tolist()
        rows = [self._hypothesis(*row) for row in zip(token_ids, logprobs, strict=True)]
        return [
            sorted(rows[at : at + self._rows], key=lambda one: -one.logprob)
            for at in range(0, len(rows), self._rows)
        ]

    def _draw(self, logprobs: torch.Tensor) -> torch.Tensor:
        """[rows, 1]: token ids from the nucleus, as `Sample` draws them."""
        step = len(self._token_ids)
        numbers = torch.tensor(
            [[uniform(seed, index, step)] for seed, index in self._draws],
            dtype=torch.float64,
            device=logprobs.device,
        )
        weights = (logprobs / self._how.temperature).softmax(-1)
        order = None
        if self._how.top_p < 1:
            weights, order = weights.sort(dim=-1, descending=True, stable=True)
        mass = weights.cumsum(-1)
        last = torch.full_like(numbers, mass.shape[1] - 1, dtype=torch.long)
        if order is not None:
            last = torch.searchsorted(mass, self._how.top_p * mass[:, -1:]).minimum(last)
        place = torch.searchsorted(mass, numbers * mass.gather(1, last), right=True).minimum(last)
        return place if order is None else order.gather(1, place)

    def _hypothesis(self, token_ids: list[int], logprobs: list[float]) -> Hypothesis:
        """What a row says up to its end token; `generate` goes on until every row has one."""
        ends = self._end_id in token_ids
        length = token_ids.index(self._end_id) + 1 if ends else len(token_ids)
        finish: Finish = "stop" if ends else "length"
        return Hypothesis(tuple(token_ids[:length]), sum(logprobs[:length]), finish)


def rows_of(request: GenerationRequest) -> int:
    """How many completions a request without beams gets."""
    return rows_needed(request, beam_width=0)
