"""Plans: what is one, and what the message says where it is none."""

from __future__ import annotations

import pytest

from app.errors import PlanError
from app.rollout.plan import Plan, read_plan

STEPS = "[[steps]]\nratio = 0.01\nmin_searches = 200\n[[steps]]\nratio = 1.0\n"
GUARD = '[[guardrails]]\nmetric = "strict"\nbetter = "higher"\nmargin = 0.02\n'


def test_a_short_plan_is_a_plan() -> None:
    plan = read_plan(STEPS + GUARD)
    assert [step.ratio for step in plan.steps] == [0.01, 1.0]
    assert plan.stages == ("recall", "rawrank", "finerank")
    assert (plan.goal.metric, plan.goal.better) == ("changed", "lower")
    assert plan.guardrails[0].tolerated == 0.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps = 3", "steps"),
        ("[[steps]", "plan: "),
        (GUARD, "steps"),
        (STEPS, "guardrails"),
        ("[[steps]]\nratio = 0.5\n" + GUARD, "last one must have ratio = 1.0"),
        ("[[steps]]\nratio = 1.0\n[[steps]]\nratio = 1.0\n" + GUARD, "must grow"),
        ("[[steps]]\nratio = 0.00015\n[[steps]]\nratio = 1.0\n" + GUARD, "multiple of 0.0001"),
        ("[[steps]]\nratio = 0.0\n" + GUARD, "steps.0.ratio"),
        ('stages = ["finerank", "finerank"]\n' + STEPS + GUARD, "named once"),
        (STEPS + GUARD + '[goal]\nmetric = "strict"\nbetter = "higher"\n', "strict is the goal"),
        (STEPS + GUARD.replace("strict", "joy"), "guardrails.0.metric"),
        ("alpha = 0.7\n" + STEPS + GUARD, "alpha"),
        ("unknown = 1\n" + STEPS + GUARD, "unknown"),
    ],
)
def test_what_is_no_plan_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        read_plan(text)


def test_a_plan_survives_the_store() -> None:
    plan = read_plan(STEPS + GUARD)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
