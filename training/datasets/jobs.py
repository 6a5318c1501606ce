"""Job titles people use -> the O*NET title of their occupation.

Validation is carved from the occupations of labels_train.tsv, the one place where ESCO labels may be
tuned on: some of its occupations are hidden whole (what the model cannot know), and some titles of the
others (what it should). No dev file is opened here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random

from training.datasets.examples import Example, read_jsonl, read_tsv
from training.datasets.typos import one_typo

SPLIT_SEED = 2606
HIDDEN_OCCUPATIONS = 30
HELD_OUT_TITLE_RATIO = 0.2

CANONICAL_RATIO, COINED_RATIO = 0.05, 0.05
TYPO_RATIO, MODIFIER_RATIO, SHUFFLE_RATIO = 0.12, 0.10, 0.08
# What job seekers add to a title that is no part of it.
MODIFIERS = (
    "job", "jobs", "nights", "night shift", "days", "weekends", "part time", "full time", "remote", "near me",
    "entry level", "no experience", "hiring", "salary",
)  # fmt: skip

_BRACKETED = re.compile(r"([^()]*)\(([^()]+)\)([^()]*)")


@dataclass(frozen=True, slots=True)
class LabelledTitle:
    """A title that O*NET lists under exactly one occupation."""

    title: str
    onet_code: str


@dataclass(frozen=True)
class JobSplit:
    """Training titles (each with its occupations) and the two validation sides; all disjoint by title.

    `canonical` maps the codes that may be known to their titles, `hidden` those that may not.
    """

    canonical: dict[str, str]
    hidden: dict[str, str]
    train: tuple[tuple[str, tuple[str, ...]], ...]
    seen: tuple[LabelledTitle, ...]
    unseen: tuple[LabelledTitle, ...]


def read_jobs(folder: Path) -> JobSplit:
    """Read and split jobs/; deterministic (`SPLIT_SEED`)."""
    canonical = {row["code"]: row["title"] for row in read_jsonl(folder / "occupations.jsonl")}
    spellings: dict[str, str] = {}
    codes: defaultdict[str, set[str]] = defaultdict(set)
    for row in read_tsv(folder / "synonyms_train.tsv"):
        key = row["title"].casefold()
        spellings.setdefault(key, row["title"])
        codes[key].add(row["onet_code"])
    labelled = sorted({row["onet_code"] for row in read_tsv(folder / "labels_train.tsv")})

    rng = Random(SPLIT_SEED)
    hidden = set(rng.sample(labelled, HIDDEN_OCCUPATIONS))
    train, seen, unseen = [], [], []
    for key in sorted(codes):
        known = codes[key] - hidden
        single = next(iter(codes[key])) if len(codes[key]) == 1 else None
        if single in hidden:
            unseen.append(LabelledTitle(spellings[key], single))
        elif single in labelled and rng.random() < HELD_OUT_TITLE_RATIO:
            seen.append(LabelledTitle(spellings[key], single))
        elif known:
            train.append((spellings[key], tuple(sorted(known))))
    train += [
        (form, known) for title, known in train for form in forms(title) if form.casefold() not in codes
    ]
    return JobSplit(
        canonical={code: title for code, title in canonical.items() if code not in hidden},
        hidden={code: title for code, title in canonical.items() if code in hidden},
        train=tuple(train),
        seen=tuple(seen),
        unseen=tuple(unseen),
    )


def forms(title: str) -> tuple[str, ...]:
    """Return the two ways to say a title that has one in brackets: "Surgical RN (Surgical Nurse)".

    A bracket of one ordinary word, as in "Pilot (Airborne)", says nothing by itself and is left out.
    """
    found = _BRACKETED.fullmatch(title)
    if found is None:
        return ()
    before, within, after = (part.strip() for part in found.groups())
    whole = " ".join(part for part in (before, after) if part)
    short = within if " " in within or within.isupper() else ""
    return tuple(form for form in (whole, short) if form)


class JobTitles:
    """Draws titles uniformly (a title of several occupations takes one of them by chance)."""

    def __init__(self, split: JobSplit) -> None:
        self._split = split
        self._canonical = sorted(split.canonical.values())

    def draw(self, rng: Random) -> Example:
        """Draw a title, sometimes misspelt, reordered, or with a word that is no part of it.

        A title that is canonical already stays as it is, and so does one coined of two canonical ones: a
        query in the vocabulary's own form is left alone even where the occupation is not known.
        """
        if (roll := rng.random()) < CANONICAL_RATIO + COINED_RATIO:
            title = rng.choice(self._canonical)
            if roll < COINED_RATIO:
                head, tail = title.split(), rng.choice(self._canonical).split()
                title = " ".join(
                    [*head[: rng.randrange(len(head))], *tail[-rng.randint(1, min(2, len(tail))) :]]
                )
            return Example(query=title, target=title)
        title, codes = rng.choice(self._split.train)
        target = self._split.canonical[rng.choice(codes)]
        roll = rng.random()
        if roll < TYPO_RATIO:
            title = one_typo(title, rng)
        elif (roll := roll - TYPO_RATIO) < MODIFIER_RATIO:
            title = f"{title} {rng.choice(MODIFIERS)}"
        elif roll - MODIFIER_RATIO < SHUFFLE_RATIO:
            words = title.replace(",", "").split()
            rng.shuffle(words)
            title = " ".join(words)
        return Example(query=title, target=target)
