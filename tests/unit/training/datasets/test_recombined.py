from __future__ import annotations

from pathlib import Path
from random import Random

from training.datasets.jobs import read_jobs
from training.datasets.recombined import RecombinedTitles, Recombiner


def test_draws_are_a_function_of_the_generator_and_labelled_with_known_titles(mini_data: Path) -> None:
    split = read_jobs(mini_data / "jobs")
    source = RecombinedTitles(split, pool=300)
    drawn = [source.draw(Random(n)) for n in range(200)]
    assert drawn == [source.draw(Random(n)) for n in range(200)]
    assert {example.target for example in drawn} <= set(split.canonical.values())
    sure = [e for e in drawn if "carpenters" in e.query.casefold()]
    assert sum(e.target == "Carpenters" for e in sure) > len(sure) / 2


def test_recombined_titles_are_new_and_made_of_known_words(mini_data: Path) -> None:
    split = read_jobs(mini_data / "jobs")
    known = {title for title, _ in split.train}
    words = {word for title in known for word in title.split()}
    recombine = Recombiner(split)
    made = [recombine(Random(n)) for n in range(300)]
    assert sum(title not in known for title in made) > 100
    assert all(title and set(title.split()) <= words for title in made)
