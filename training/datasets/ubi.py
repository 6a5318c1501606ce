"""User Behavior Insights logs -> what the loop learns from: queries, and what people did with documents.

Rates are of a query text (white space collapsed, casefolded) in a context and an object, over the query_ids
of that text and context. A query_id's context is that of the latest of its query documents that has one:

    impressions      query_ids in which the object was shown: an impression of it, or any action on it
    strict-click     the share of them with a strict click: a click on the object that a conversion of it (add
                     to cart, purchase) follows, or that no click on another object follows sooner than
                     STRICT_DWELL_S: who is back before that found nothing
    no-action        the share of them without any action on the object although it was examined: an object at
                     its position or a later one was clicked (what lies below the last click may not have been
                     seen), or its position is not known

An object's position in a query_id is the smallest that its events name. Clicked are the objects with a strict
click and enough impressions, skipped those without a strict click and with a no-action rate above 0; others
are in neither list. Events at the same instant have no order: a conversion then follows the click, another
click does not.

Logs are larger than memory: they go through a database file, of about 200 bytes an event and the contexts.
"""

from __future__ import annotations

import json
import math
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heappop, heappush
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TextIO

from app.relevance.base import Content
from training.datasets.examples import DataError
from training.datasets.instances import Instance, Search, Seen
from training.datasets.ubi_context import context_of
from training.datasets.ubi_log import FROM_QUERY, Entry, Malformed, microseconds, moment, read_log
from training.datasets.ubi_rates import Rate, RateTable, normalised


@dataclass(frozen=True, slots=True)
class Options:
    """What is read, and how instances are made of it.

    Args:
        since: the first moment whose events count, with a time zone; None: from the start of the log.
        until: the first moment whose events do not count any more; None: to the end of the log.
        min_impressions: an object with fewer is not among the clicked.
        most_unclicked: so many searches without a click are kept, chosen by a hash of what was typed.
        num_random: random documents of an instance; fewer where the catalogue has no more.
        seed: of the random documents; drawn per query in its context, so that no other query and no order of
            lines matters.
        set_aside: a file that gets malformed lines, as JSON lines of file, line, reason and raw; None: none.
        scratch: a folder with room for the database; None: the system's. SQLite's own temporary files,
            about as large, go where its SQLITE_TMPDIR says.

    Raises:
        ValueError: a moment has no time zone, or a number is too small.
    """

    since: datetime | None = None
    until: datetime | None = None
    min_impressions: int = 1
    most_unclicked: int = 20_000
    num_random: int = 8
    seed: int = 0
    set_aside: Path | None = None
    scratch: Path | None = None

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            if (moment := getattr(self, name)) is not None and moment.utcoffset() is None:
                raise ValueError(f"{name} must have a time zone: {moment.isoformat()} has none")
        if self.min_impressions < 1 or self.num_random < 0:
            raise ValueError("min_impressions must be at least 1, num_random at least 0")


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of a log. `lines` = blank + bulk_actions + queries + events + the sum of malformed.

    Args:
        lines: read.
        blank: lines with nothing on them.
        bulk_actions: action lines with their document.
        queries: `ubi_queries` documents.
        events: `ubi_events` documents; the next four are some of them.
        ignored: events whose action means nothing here.
        outside_window: events before `since` or not before `until`; a search's text is known all the same.
        duplicates: events that repeat query_id, action, object and timestamp of another.
        without_text: events in the window, duplicates too, of query_ids whose text nothing tells.
        malformed: lines by reason, see `ubi_log.Reason`.
        texts: different query texts, each in every context it has, that brought up an object.
        unknown_objects: different objects of these that the catalogue lacks.
        instances: texts with a clicked object that the catalogue has.
    """

    lines: int = 0
    blank: int = 0
    bulk_actions: int = 0
    queries: int = 0
    events: int = 0
    ignored: int = 0
    outside_window: int = 0
    duplicates: int = 0
    without_text: int = 0
    malformed: Mapping[str, int] = field(default_factory=dict)
    texts: int = 0
    unknown_objects: int = 0
    instances: int = 0


def read_instances(
    files: Sequence[Path], catalogue: Mapping[str, Content], *, options: Options | None = None
) -> Instances:
    """Read event logs, in any order of their lines, in memory that does not grow with them.

    Args:
        files: the logs; one query_id may be spread over several.
        catalogue: object id -> what its document says; what it lacks is left out.
        options: None: the defaults.
    """
    return Instances(_Reading(tuple(files), catalogue, options or Options()))


class Instances(Iterator[Instance]):
    """The instances of event logs, once; for `read_instances` to make.

    In the order of their normalised texts, then of their contexts, none first. `query` is the form that most
    query_ids of the text in that context have. The logs are read when the first is asked for.

    Raises:
        DataError: while iterating: a log is missing or cannot be read, or nothing can be set aside.
    """

    def __init__(self, reading: _Reading) -> None:
        self._reading = reading
        self._stream = reading.instances()

    def __next__(self) -> Instance:
        return next(self._stream)

    @property
    def counts(self) -> Counts:
        """What was counted so far: all there is when the iteration is over."""
        return self._reading.counts()

    @property
    def span(self) -> tuple[datetime, datetime] | None:
        """The first and the last moment of the events that counted so far; None where none did."""
        first_us, last_us = self._reading.span_us
        return (moment(int(first_us)), moment(int(last_us))) if first_us <= last_us else None

    @property
    def unclicked(self) -> list[Search]:
        """The searches that brought up documents of which none was clicked, once the iteration is over."""
        return [search for *_, search in sorted(self._reading.unclicked, key=lambda kept: kept[1])]


class _Reading:
    """Apart from its iterator, so that an abandoned iteration is no cycle: its files go at once."""

    def __init__(self, files: Sequence[Path], catalogue: Mapping[str, Content], options: Options) -> None:
        self._counter: Counter[str] = Counter()
        self._malformed: Counter[str] = Counter()
        self.unclicked: list[tuple[int, str, Search]] = []
        self.span_us: tuple[float, float] = (math.inf, -math.inf)
        self._files, self._catalogue, self._options = files, catalogue, options
        self._since_us = microseconds(options.since) if options.since else -math.inf
        self._until_us = microseconds(options.until) if options.until else math.inf

    def counts(self) -> Counts:
        return Counts(malformed=dict(sorted(self._malformed.items())), **self._counter)

    def instances(self) -> Iterator[Instance]:
        with ExitStack() as stack:
            folder = stack.enter_context(TemporaryDirectory(prefix="ubi-", dir=self._options.scratch))
            table = stack.enter_context(closing(RateTable(Path(folder) / "log.sqlite")))
            table.fill(self._entries())
            self._counter.update(table.counts())
            self._counter["unknown_objects"] = sum(name not in self._catalogue for name in table.objects())
            yield from self._from_rates(table.rates())

    def _entries(self) -> Iterator[Entry]:
        """Yield what the database must hold; what else the logs have is counted here and is gone."""
        with ExitStack() as stack:
            aside = self._options.set_aside and stack.enter_context(_writable(self._options.set_aside))
            for path, item in ((log, item) for log in self._files for item in read_log(log)):
                self._counter["lines"] += 1
                if isinstance(item, Entry):
                    if self._tells(item):
                        yield item
                elif isinstance(item, Malformed):
                    self._malformed[item.reason] += 1
                    if aside:
                        aside.write(_report(path, item))
                else:
                    self._counter[item] += 1
                    self._counter["events"] += item == "ignored"

    def _tells(self, entry: Entry) -> bool:
        """Count a query or an event, and say whether it tells anything."""
        if entry.source == FROM_QUERY:
            self._counter["queries"] += 1
            return entry.text is not None or bool(entry.context)
        self._counter["events"] += 1
        outside = not self._since_us <= entry.at_us < self._until_us
        self._counter["outside_window"] += outside
        if entry.action and not outside:
            first_us, last_us = self.span_us
            self.span_us = min(first_us, entry.at_us), max(last_us, entry.at_us)
        return not outside if entry.action else entry.text is not None

    def _from_rates(self, rates: Iterable[Rate]) -> Iterator[Instance]:
        """Make an instance of each text in its context that has one."""
        doc_ids = sorted(self._catalogue)
        for (query, context), rows in groupby(rates, key=attrgetter("query", "context")):
            self._counter["texts"] += 1
            clicked, skipped, acted = {}, {}, False
            for row in rows:
                acted |= row.acted > 0
                if row.name not in self._catalogue:
                    continue
                if row.strict and row.impressions >= self._options.min_impressions:
                    clicked[row.name] = row.strict / row.impressions
                elif not row.strict and row.unacted:
                    skipped[row.name] = row.unacted / row.impressions
            if clicked:
                self._counter["instances"] += 1
                yield Instance(
                    query,
                    self._seen(clicked),
                    self._seen(skipped),
                    self._random(normalised(query) + context, clicked | skipped, doc_ids),
                    context_of(context),
                )
            elif not acted:
                self._keep(normalised(query) + context, Search(query, context_of(context)))

    def _keep(self, asked: str, search: Search) -> None:
        """Of all that come so the first `most_unclicked` by a hash stay, however many there are."""
        heappush(self.unclicked, (-zlib.crc32(asked.encode()), asked, search))
        if len(self.unclicked) > self._options.most_unclicked:
            heappop(self.unclicked)

    def _seen(self, rates: Mapping[str, float]) -> tuple[Seen, ...]:
        return tuple(Seen(self._catalogue[name], rate) for name, rate in rates.items())

    def _random(self, asked: str, but: Collection[str], doc_ids: Sequence[str]) -> tuple[Content, ...]:
        rng = Random(f"{self._options.seed} {asked}")
        # Among so many there are num_random of the others, if there are so many at all.
        drawn = rng.sample(doc_ids, min(len(doc_ids), self._options.num_random + len(but)))
        others = [name for name in drawn if name not in but]
        return tuple(self._catalogue[name] for name in others[: self._options.num_random])


def _writable(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error}; name a file in a folder that exists") from error


def _report(path: Path, malformed: Malformed) -> str:
    raw = malformed.raw.decode(errors="backslashreplace").rstrip("\r\n")
    row = {"file": str(path), "line": malformed.line, "reason": malformed.reason, "raw": raw}
    return json.dumps(row, ensure_ascii=False) + "\n"
