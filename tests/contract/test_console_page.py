"""docs/console.md says of the console what is so."""

from __future__ import annotations

import re
from pathlib import Path

from app.cli import parse
from app.console.access import PATH
from app.console.acts import ACTS
from app.console.pages import HEADERS
from app.console.rollout_page import REFRESH_S
from app.console.session import LASTS_S
from app.settings import Settings
from app.telemetry import METRICS

PAGE = (Path(__file__).parents[2] / "docs" / "console.md").read_text(encoding="utf-8")


def test_the_headers_are_those_of_the_page() -> None:
    block = PAGE.split("<!-- headers -->\n```\n")[1].split("```")[0]
    assert dict(line.split(": ", 1) for line in block.splitlines()) == HEADERS


def test_each_button_has_its_row_with_a_command_and_its_states() -> None:
    rows = re.findall(r"^\| ([A-Z][\w ]+) \| `corewrite (.+?)` \| (.+?) \|$", PAGE, re.MULTILINE)
    assert [name for name, _, _ in rows] == [act.title for act in ACTS.values()]
    for (_, command, when), act in zip(rows, ACTS.values(), strict=True):
        parse([*command.split(), "--why", "x"])
        assert not act.states or tuple(when.split(", ")) == act.states


def test_what_it_names_there_is() -> None:
    settings = {f"REWRITE_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"REWRITE_\w+", PAGE)) <= settings
    assert set(re.findall(r"`(corewrite_\w+)", PAGE)) <= {spec.name for spec in METRICS}
    assert set(re.findall(r"`(/console[\w/]*)", PAGE)) == {
        PATH,
        *(f"{PATH}/{name}" for name in ("rollout", "checkpoints", "service", "rollout/kill")),
    }


def test_its_times_are_those_of_the_code() -> None:
    assert (LASTS_S, REFRESH_S) == (8 * 3600, 5)
    assert "after eight hours" in PAGE
    assert "every five seconds" in PAGE
