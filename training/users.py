"""People who search, simulated: they look from the top, click what attracts them, stop when satisfied. Pure.

A position-based model: the place alone decides whether a document is looked at, (1 / place) ** eta (Joachims,
Swaminathan and Schnabel, WSDM 2017), and a click then depends on the document alone. After a click that
satisfies, the rest is not looked at (Chapelle and Zhang, WWW 2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Click:
    """A click on the document at `place`, from 0; `satisfied`: the search ends with it."""

    place: int
    satisfied: bool


@dataclass(frozen=True, slots=True)
class User:
    """How people click; probabilities of (an irrelevant, a relevant) document.

    Args:
        eta: how fast attention falls with the place; 0: every place is looked at.
        attraction: of a click on a document that is looked at.
        satisfaction: of the search ending with a click.
    """

    eta: float = 1.0
    attraction: tuple[float, float] = (0.05, 0.8)
    satisfaction: tuple[float, float] = (0.05, 0.6)

    def clicks(self, relevant: Sequence[bool], rng: Random) -> list[Click]:
        """One search: the clicks on a ranking, of which is known what is relevant, from the top."""
        found: list[Click] = []
        for place, is_relevant in enumerate(relevant):
            if rng.random() >= (place + 1) ** -self.eta:
                continue
            if rng.random() < self.attraction[is_relevant]:
                satisfied = rng.random() < self.satisfaction[is_relevant]
                found.append(Click(place, satisfied))
                if satisfied:
                    break
        return found
