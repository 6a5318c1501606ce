"""What the loop learns from: a query in its context, and what people did with the documents it brought."""

from __future__ import annotations

from dataclasses import dataclass

from app.contracts.prompt import NO_CONTEXT, Context
from app.relevance.base import Content


@dataclass(frozen=True, slots=True)
class Seen:
    """A document that people saw, and how often they did with it what its list says.

    Args:
        content: what the relevance model reads of it.
        rate: of a clicked document its strict-click rate, of a skipped one its no-action rate; in (0, 1].
    """

    content: Content
    rate: float

    def __post_init__(self) -> None:
        if not 0.0 < self.rate <= 1.0:
            raise ValueError(f"a rate must be in (0, 1], not {self.rate!r}")


@dataclass(frozen=True, slots=True)
class Search:
    """What was typed, and what was known when it was."""

    query: str
    context: Context = NO_CONTEXT


@dataclass(frozen=True, slots=True)
class Instance:
    """One query of the log.

    Args:
        query: as it was typed.
        clicked: documents with clicks that meant something, at least one.
        skipped: documents that were seen and left alone; there may be none.
        random: documents that have nothing to do with the query but by chance.
        context: what was known when it was typed.
    """

    query: str
    clicked: tuple[Seen, ...]
    skipped: tuple[Seen, ...]
    random: tuple[Content, ...]
    context: Context = NO_CONTEXT

    def __post_init__(self) -> None:
        if not self.clicked:
            raise ValueError(f"{self.query!r} has no clicked document: there is nothing to learn from it")

    @property
    def documents(self) -> list[Content]:
        """All of them: the clicked ones, the skipped ones, the random ones."""
        return [*(seen.content for seen in (*self.clicked, *self.skipped)), *self.random]
