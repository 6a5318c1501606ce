from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from training.datasets.examples import DataError, read_jsonl, read_tsv
from training.datasets.jobs import HIDDEN_OCCUPATIONS, JobTitles, forms, read_jobs


def test_the_sides_are_disjoint_and_hidden_occupations_are_nowhere_in_training(mini_data: Path) -> None:
    split = read_jobs(mini_data / "jobs")
    trained = {title.casefold() for title, _ in split.train}
    held = {t.title.casefold() for t in (*split.seen, *split.unseen)}
    hidden = {t.onet_code for t in split.unseen}
    assert not trained & held
    assert len(hidden) == HIDDEN_OCCUPATIONS
    assert not hidden & {code for _, codes in split.train for code in codes}
    assert not hidden & set(split.canonical)
    assert not hidden & {t.onet_code for t in split.seen}


def test_a_title_of_two_occupations_is_trained_with_both_and_never_held_out(mini_data: Path) -> None:
    split = read_jobs(mini_data / "jobs")
    assert ("Helper", ("11-1", "22-2")) in split.train
    targets = {JobTitles(split).draw(Random(n)).target for n in range(3000)}
    assert {"Registered Nurses", "Carpenters"} <= targets


def test_no_dev_query_is_trained_on(shared_data: Path) -> None:
    split = read_jobs(shared_data / "jobs")
    dev = {
        row["text"].casefold()
        for row in read_jsonl(shared_data / "jobs" / "queries.jsonl")
        if row["split"] in {"dev_seen", "dev_unseen"}
    }
    assert len(dev) > 1500
    assert not dev & {title.casefold() for title, _ in split.train}


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Surgical RN (Surgical Nurse)", ("Surgical RN", "Surgical Nurse")),
        ("Deejay (DJ)", ("Deejay", "DJ")),
        ("Electroencephalogram (EEG) Technologist", ("Electroencephalogram Technologist", "EEG")),
        ("Flight Officer (Airborne)", ("Flight Officer",)),
        ("Nurse", ()),
        ("Nurse (a (b))", ()),
    ],
)
def test_a_title_with_brackets_is_two(title: str, expected: tuple[str, ...]) -> None:
    assert forms(title) == expected


def test_titles_in_canonical_form_stay_as_they_are_even_when_coined(mini_data: Path) -> None:
    split = read_jobs(mini_data / "jobs")
    known = {title for title, _ in split.train} | set(split.canonical.values())
    drawn = [JobTitles(split).draw(Random(n)) for n in range(3000)]
    coined = [e for e in drawn if e.query == e.target and e.query not in known]
    assert len(coined) > 50
    words = {word for title in split.canonical.values() for word in title.split()}
    assert all(set(e.query.split()) <= words for e in coined)
    assert not {t.title for t in split.unseen} & {e.query for e in drawn}
    assert not set(split.hidden) & set(split.canonical)


def test_broken_files_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{')
    with pytest.raises(DataError, match=r"a\.jsonl:2"):
        list(read_jsonl(tmp_path / "a.jsonl"))
    (tmp_path / "list.jsonl").write_text("[]\n")
    with pytest.raises(DataError, match="expected an object"):
        list(read_jsonl(tmp_path / "list.jsonl"))
    (tmp_path / "a.tsv").write_text("a\tb\n1\t2\n1\n")
    with pytest.raises(DataError, match=r"a\.tsv:3: 1 fields where the header has 2"):
        list(read_tsv(tmp_path / "a.tsv"))
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(DataError, match="no header"):
        list(read_tsv(tmp_path / "empty.tsv"))
    (tmp_path / "latin.tsv").write_bytes(b"a\n\xe9\n")
    with pytest.raises(DataError, match=r"latin\.tsv: not UTF-8"):
        list(read_tsv(tmp_path / "latin.tsv"))
    with pytest.raises(DataError, match="no such file"):
        list(read_tsv(tmp_path / "nowhere.tsv"))
