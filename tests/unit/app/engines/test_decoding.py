from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scored import log_softmax, scored

from app.engines.base import GenerationRequest
from app.engines.decoding import Beam, Decoder, Greedy, Hypothesis, Sample, make_decoder

VOCAB, END = 5, 0


def table(seed: int, steps: int) -> dict[tuple[int, ...], np.ndarray]:
    """A language model as a table: the logits after every prefix that has not ended."""
    rng = np.random.default_rng(seed)
    return {
        prefix: rng.normal(size=VOCAB).astype(np.float32) * 2
        for length in range(steps)
        for prefix in product(range(1, VOCAB), repeat=length)
    }


def decode(decoder: Decoder, model: dict[tuple[int, ...], np.ndarray], best: int = 3) -> list[Hypothesis]:
    rows: list[tuple[int, ...]] = [()]
    while rows:
        continued = decoder.advance(scored(np.stack([model[row] for row in rows]), best=best))
        rows = [(*rows[row], token) for row, token in continued]
    return decoder.results()


def every_completion(model: dict[tuple[int, ...], np.ndarray], steps: int) -> list[Hypothesis]:
    found: list[Hypothesis] = []

    def grow(prefix: tuple[int, ...], total: float) -> None:
        for token, logprob in enumerate(log_softmax(model[prefix])):
            longer, score = (*prefix, token), total + float(logprob)
            if token == END:
                found.append(Hypothesis(longer, score, "stop"))
            elif len(longer) == steps:
                found.append(Hypothesis(longer, score, "length"))
            else:
                grow(longer, score)

    grow((), 0.0)
    return sorted(found, key=lambda hypothesis: -hypothesis.logprob)


@pytest.mark.parametrize("seed", range(8))
def test_a_beam_as_wide_as_the_tree_is_exhaustive(seed: int) -> None:
    model = table(seed, 4)
    beam = Beam(width=VOCAB**4, best=6, end_id=END, max_tokens=4)
    expected = every_completion(model, 4)[:6]
    found = decode(beam, model)
    assert [h.token_ids for h in found] == [h.token_ids for h in expected]
    assert [h.finish for h in found] == [h.finish for h in expected]
    assert [h.logprob for h in found] == pytest.approx([h.logprob for h in expected])


@pytest.mark.parametrize("seed", range(8))
def test_a_beam_of_one_is_greedy(seed: int) -> None:
    model = table(seed, 6)
    (beam,) = decode(Beam(width=1, best=1, end_id=END, max_tokens=6), model)
    (greedy,) = decode(Greedy(end_id=END, max_tokens=6), model)
    assert beam.token_ids == greedy.token_ids
    assert beam.finish == greedy.finish
    assert beam.logprob == pytest.approx(greedy.logprob, abs=1e-5)


def test_ties_go_to_the_lower_token() -> None:
    flat = {prefix: np.zeros(VOCAB, np.float32) for prefix in table(0, 2)}
    (greedy,) = decode(Greedy(end_id=-1, max_tokens=1), flat)
    beam = decode(Beam(width=3, best=3, end_id=-1, max_tokens=1), flat)
    assert greedy.token_ids == (0,)
    assert [h.token_ids for h in beam] == [(0,), (1,), (2,)]


def test_draws_follow_the_distribution_and_the_nucleus() -> None:
    probabilities = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
    model = {(): np.log(probabilities).astype(np.float32)}

    def shares(top_p: float) -> np.ndarray:
        request = GenerationRequest("", mode="sample", num_completions=4000, max_tokens=1, top_p=top_p)
        drawn = [h.token_ids[0] for h in decode(Sample(request, end_id=END), model)]
        return np.bincount(drawn, minlength=VOCAB) / len(drawn)

    assert shares(1.0) == pytest.approx(probabilities, abs=0.03)
    assert shares(0.7) == pytest.approx([2 / 3, 1 / 3, 0, 0, 0], abs=0.03)
    assert shares(0.01) == pytest.approx([1, 0, 0, 0, 0])


def test_a_draw_does_not_depend_on_how_many_there_are() -> None:
    model = table(3, 5)

    def drawn(count: int) -> set[tuple[int, ...]]:
        request = GenerationRequest("", mode="sample", num_completions=count, max_tokens=5, seed=-7)
        return {h.token_ids for h in decode(make_decoder(request, end_id=END, beam_width=4), model)}

    assert drawn(2) <= drawn(9)


@pytest.mark.parametrize("seed", range(8))
def test_the_best_tokens_of_each_row_are_all_a_beam_needs(seed: int) -> None:
    model = table(seed, 5)
    dense, sparse = (Beam(width=2, best=2, end_id=END, max_tokens=5) for _ in range(2))
    rows: list[tuple[int, ...]] = [()]
    while rows:
        logits = [model[row] for row in rows]
        found = [
            {int(token): float(row[token]) for token in np.argsort(-row)[: sparse.candidates]}
            for row in scored(np.stack(logits)).logprobs
        ]
        continued = sparse.advance_sparse(found)
        assert continued == dense.advance(scored(np.stack(logits)))
        rows = [(*rows[row], token) for row, token in continued]
    assert sparse.results() == dense.results()


@pytest.mark.parametrize("seed", range(8))
def test_how_many_were_found_beforehand_changes_no_answer(seed: int) -> None:
    model = table(seed, 4)

    def answer(best: int) -> list[Hypothesis]:
        return decode(Beam(width=2, best=2, end_id=END, max_tokens=4), model, best)

    assert answer(1) == answer(4) == answer(VOCAB)
