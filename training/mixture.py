"""The training mixture: which source each example comes from, as batches that depend on the seed alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tokenizers import Tokenizer

from app.contracts.prompt import END, MAX_QUERY_CHARS, clean, render
from training.datasets.conversations import Conversations, read_turns
from training.datasets.examples import Example, Source
from training.datasets.followups import Catalogue, FollowUps, read_items
from training.datasets.jobs import JobTitles, read_jobs
from training.datasets.recombined import RecombinedTitles
from training.datasets.spelling import Misspellings, ProductPhrases
from training.tokenizer import breakable, with_breaks

SOURCES: Mapping[str, Callable[[Path], Source]] = {
    "jobs": lambda data: JobTitles(read_jobs(data / "jobs")),
    "recombined": lambda data: RecombinedTitles(read_jobs(data / "jobs")),
    "products": lambda data: ProductPhrases(data / "products"),
    "typos": lambda data: Misspellings(data / "typos" / "misspellings.tsv"),
    "context": lambda data: Conversations(
        [turn for turn in read_turns(data / "context" / "train.jsonl") if not turn.validation]
    ),
    "fashion": lambda data: FollowUps(Catalogue(read_items(data / "fashion" / "items.jsonl"))),
}
POOL_EXAMPLES = 4096
TOKENIZER_EXAMPLES = 120_000


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of prompt and target (the end token included)."""

    prompt: list[int]
    target: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


class Mixture:
    """Draws examples from several sources by fixed shares.

    Raises:
        KeyError: a share names a source that `SOURCES` lacks.
    """

    def __init__(self, shares: Mapping[str, float], data_dir: Path) -> None:
        self._sources = [SOURCES[name](data_dir) for name in shares]
        self._shares = list(shares.values())

    def draw(self, rng: Random) -> Example:
        """Draw one example."""
        return rng.choices(self._sources, weights=self._shares)[0].draw(rng)

    def texts(self, seed: int) -> Iterator[str]:
        """Yield the texts that the tokenizer is trained on: a fixed number of drawn examples."""
        rng = Random(seed)
        for _ in range(TOKENIZER_EXAMPLES):
            example = self.draw(rng)
            yield example.query
            yield example.target


def encode(
    tokenizer: Tokenizer, examples: list[Example], *, break_ratio: float, rng: Random
) -> list[Encoded]:
    """Encode examples as the engines will see them, but for words of the query that are broken in two."""
    queries = [with_breaks(e.query, break_ratio, rng) for e in examples]
    prompts = breakable(tokenizer).encode_batch(
        [render(query, e.context) for query, e in zip(queries, examples, strict=True)]
    )
    targets = tokenizer.encode_batch([clean(e.target, MAX_QUERY_CHARS) + END for e in examples])
    return [Encoded(prompt.ids, target.ids) for prompt, target in zip(prompts, targets, strict=True)]


def batches(
    mixture: Mixture,
    tokenizer: Tokenizer,
    *,
    seed: int,
    pool: int,
    batch_tokens: int,
    max_tokens: int,
    break_ratio: float = 0.0,
) -> list[list[Encoded]]:
    """Return the batches of the `pool`-th pool of examples: of similar lengths, in a shuffled order.

    A function of its arguments alone, so that a run resumed at a pool's border sees what it would have
    seen. Examples longer than `max_tokens` are left out.
    """
    rng = Random(f"{seed}/{pool}")
    drawn = [mixture.draw(rng) for _ in range(POOL_EXAMPLES)]
    encoded = encode(tokenizer, drawn, break_ratio=break_ratio, rng=rng)
    encoded = sorted((e for e in encoded if len(e) <= max_tokens), key=len)
    grouped: list[list[Encoded]] = []
    start = 0
    while start < len(encoded):
        end = start + 1
        while end < len(encoded) and len(encoded[end]) * (end + 1 - start) <= batch_tokens:
            end += 1
        grouped.append(encoded[start:end])
        start = end
    rng.shuffle(grouped)
    return grouped
