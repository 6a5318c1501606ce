"""The gate's verdict. Pure: evidence and a policy in, a verdict out.

Every limit is a clause: a number per query that is above 0 where all is well.

    margin, higher is better       candidate - incumbent + margin
    margin, lower is better        incumbent - candidate + margin
    margin, either                 both
    low, high                      candidate - low, high - candidate
    goal                           candidate - incumbent - gain (or the other way round)

A clause PASSes where its mean is surely above 0, FAILs where it is surely below, and is INCONCLUSIVE between:
then it says how many queries would settle it. Something a verdict cannot do without that is missing, or is no
number, is an ERROR: missing evidence is never 0, and never p = 1.

Of all clauses the worst decides: ERROR > FAIL > INCONCLUSIVE > PASS. To PASS, every clause must, each at
`level`: no correction is due, for the chance that all pass where one should not is that of the one (Berger,
Technometrics 1982). To FAIL, one is enough: there Holm's correction over all clauses keeps the chance of
failing a checkpoint that does no harm below `level`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np

from training.gate.policy import Policy, Rule
from training.gate.statistics import LEAST, Floats, Sign, exact_sign, holm, sign_of

Limit = Literal["margin", "low", "high", "goal"]


class State(IntEnum):
    """What is decided; the larger wins."""

    PASS = 0
    INCONCLUSIVE = 1
    FAIL = 2
    ERROR = 3


@dataclass(frozen=True, slots=True)
class Measurement:
    """One metric of both checkpoints on the same queries.

    Args:
        candidate: a value per query; NaN where a query has none.
        incumbent: likewise, in the same order; None: the metric has no meaning for the incumbent.
        exact: the values were counted, not sampled, as a memory's size.
    """

    candidate: Floats
    incumbent: Floats | None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What one clause says.

    Args:
        metric, limit: which.
        state: what it decides.
        bound: the number in the policy.
        candidate, incumbent: means over the queries that both have; None where there are none.
        slack: of the clause: above 0 all is well. None where nothing was measured.
        needed: queries that would settle it, where it is INCONCLUSIVE and any number would.
        reason: why it is an ERROR.
    """

    metric: str
    limit: Limit
    state: State
    bound: float
    candidate: float | None = None
    incumbent: float | None = None
    slack: Sign | None = None
    needed: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says, and of what it was made. `problems` are errors that are no metric's."""

    state: State
    decisions: Sequence[Decision]
    problems: Sequence[str] = ()

    @property
    def caught_by(self) -> list[str]:
        """The metrics that failed it."""
        return list(dict.fromkeys(one.metric for one in self.decisions if one.state is State.FAIL))


@dataclass(frozen=True, slots=True)
class _Clause:
    metric: str
    limit: Limit
    bound: float
    measured: Measurement
    slack: Floats


def verdict_on(
    measured: Mapping[str, Measurement], policy: Policy, *, problems: Sequence[str] = ()
) -> Verdict:
    """Return the verdict.

    Args:
        measured: by metric; one that is not there was not measured.
        policy: what is asked.
        problems: what else makes a verdict impossible, in words.
    """
    errors: list[Decision] = []
    clauses: list[_Clause] = []
    for metric, rule in policy.metrics.items():
        try:
            clauses += _clauses(metric, rule, measured.get(metric))
        except ValueError as error:
            errors += [_error(metric, rule, str(error))] if rule.required or metric in measured else []
    goal = next((metric for metric in policy.goal.metrics if metric in measured), None)
    if goal is None:
        names = ", ".join(policy.goal.metrics)
        errors.append(Decision(names, "goal", State.ERROR, policy.goal.gain, reason="none was measured"))
    elif all(one.metric != goal for one in errors):
        clauses.append(_goal(goal, policy, measured[goal]))
    decisions = errors + _decided(clauses, policy)
    worst = max((one.state for one in decisions), default=State.ERROR)
    return Verdict(State.ERROR if problems else worst, decisions, problems)


def _decided(clauses: Sequence[_Clause], policy: Policy) -> list[Decision]:
    signs = [_sign(clause, policy) for clause in clauses]
    below = [
        sign.p_below if _is_enough(clause, sign) else 1.0 for clause, sign in zip(clauses, signs, strict=True)
    ]
    found = []
    for clause, sign, failed in zip(clauses, signs, holm(below, policy.level), strict=True):
        passed = _is_enough(clause, sign) and sign.p_above <= policy.level
        state = State.FAIL if failed else State.PASS if passed else State.INCONCLUSIVE
        found.append(
            Decision(
                clause.metric,
                clause.limit,
                state,
                clause.bound,
                _mean(clause.measured.candidate),
                None if clause.measured.incumbent is None else _mean(clause.measured.incumbent),
                sign,
                sign.needed(policy.level) if state is State.INCONCLUSIVE else None,
            )
        )
    return found


def _sign(clause: _Clause, policy: Policy) -> Sign:
    if clause.measured.exact:
        return exact_sign(float(clause.slack.mean()))
    return sign_of(clause.slack, level=policy.level, resamples=policy.resamples, seed=policy.seed)


def _is_enough(clause: _Clause, sign: Sign) -> bool:
    return clause.measured.exact or sign.queries >= LEAST


def _clauses(metric: str, rule: Rule, measured: Measurement | None) -> Iterator[_Clause]:
    """Raises ValueError where the metric was not measured."""
    kept = _usable(measured)
    if rule.margin is not None:
        change = _change(kept)
        for wanted in {"higher": (1,), "lower": (-1,), "either": (1, -1)}[rule.direction]:
            yield _Clause(metric, "margin", rule.margin, kept, wanted * change + rule.margin)
    if rule.low is not None:
        yield _Clause(metric, "low", rule.low, kept, kept.candidate - rule.low)
    if rule.high is not None:
        yield _Clause(metric, "high", rule.high, kept, rule.high - kept.candidate)


def _goal(metric: str, policy: Policy, measured: Measurement) -> _Clause:
    kept, gain = _usable(measured), policy.goal.gain
    better = 1 if policy.metrics[metric].direction == "higher" else -1
    return _Clause(metric, "goal", gain, kept, better * _change(kept) - gain)


def _usable(measured: Measurement | None) -> Measurement:
    """The queries that have a value on both sides."""
    if measured is None:
        raise ValueError("not measured")
    there = ~np.isnan(measured.candidate)
    if measured.incumbent is not None:
        there &= ~np.isnan(measured.incumbent)
    if not there.any():
        raise ValueError("no query has it")
    incumbent = None if measured.incumbent is None else measured.incumbent[there]
    kept = Measurement(measured.candidate[there], incumbent, measured.exact)
    if not all(np.isfinite(side).all() for side in (kept.candidate, incumbent) if side is not None):
        raise ValueError("a value is infinite")
    return kept


def _change(measured: Measurement) -> Floats:
    if measured.incumbent is None:
        raise ValueError("the incumbent has no value to compare with: set low or high in place of margin")
    return measured.candidate - measured.incumbent


def _error(metric: str, rule: Rule, reason: str) -> Decision:
    limits: dict[Limit, float | None] = {"margin": rule.margin, "low": rule.low, "high": rule.high}
    limit, bound = next((limit, bound) for limit, bound in limits.items() if bound is not None)
    return Decision(metric, limit, State.ERROR, bound, reason=reason)


def _mean(values: Floats) -> float:
    return float(values.mean())
