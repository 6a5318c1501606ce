"""Every word of a closed set is explained."""

from __future__ import annotations

from typing import get_args

from app.console.acts import ACTS, open_acts
from app.console.words import REASONS
from app.contracts.reasons import Reason
from app.rollout.state import State


def test_every_reason_has_its_sentence() -> None:
    assert set(REASONS) == set(Reason)


def test_what_can_be_done_follows_from_the_state() -> None:
    live = ("preparing", "running", "paused")
    found = {state: open_acts(state, live=state in live, killed=False) for state in (None, *get_args(State))}
    assert found == {
        None: ["start", "kill"],
        "preparing": ["rollback", "kill"],
        "running": ["pause", "promote", "rollback", "kill"],
        "paused": ["resume", "promote", "rollback", "kill"],
        "promoted": ["start", "kill"],
        "rolled_back": ["start", "kill"],
    }
    assert open_acts("running", live=True, killed=True)[-1] == "revive"
    assert {name for names in found.values() for name in names} | {"revive"} == set(ACTS)
