"""A gate's report, `gate.json`, as far as a page shows it. Pure.

training/gate writes it. What is not known here is passed over, and what is missing is shown as such: reports
outlive the version that wrote them.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from app.errors import CheckpointError

KINDS = {"PASS": "good", "FAIL": "bad", "ERROR": "bad", "INCONCLUSIVE": "open"}
"""The kind of colour of a verdict."""
_WORST_FIRST = "ERROR FAIL INCONCLUSIVE PASS"


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Named(_Lenient):
    """A checkpoint that was judged."""

    id: str
    address: str = ""


class Window(_Lenient):
    """What it was judged on."""

    first: str
    last: str
    queries: int
    labelled: int = 0


class Decision(_Lenient):
    """What one limit says; `slack` is the room left, above 0 where all is well."""

    metric: str
    limit: str
    state: str
    bound: float | None = None
    candidate: float | None = None
    incumbent: float | None = None
    slack: float | None = None
    slack_interval: tuple[float, float] | None = None
    queries: int | None = None
    needed: int | None = None
    reason: str = ""


class GateReport(_Lenient):
    """The report on one checkpoint."""

    verdict: str
    caught_by: Sequence[str] = ()
    problems: Sequence[str] = ()
    candidate: Named | None = None
    incumbent: Named | None = None
    window: Window | None = None
    decisions: Sequence[Decision] = ()

    @property
    def kind(self) -> str:
        """The kind of colour of its verdict."""
        return KINDS.get(self.verdict, "open")

    @property
    def counts(self) -> dict[str, int]:
        """How many limits said what, the worst first."""
        states = [one.state for one in self.worst_first]
        return {state: states.count(state) for state in dict.fromkeys(states)}

    @property
    def worst_first(self) -> list[Decision]:
        """The limits, those on top that decide."""
        return sorted(self.decisions, key=lambda one: _WORST_FIRST.find(one.state))


def read_report(content: bytes) -> GateReport:
    """Return the report of a file.

    Raises:
        CheckpointError: it is none.
    """
    try:
        return GateReport.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"])) or "file"
        raise CheckpointError(f"gate.json: {place}: {problem['msg']}") from error
