"""The pages of docs/integrations as a reader runs them: the request shown gives the answer shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from fakes import FakeCalibration, FakeCheckpoint, FakeRelevance, completion
from starlette.testclient import TestClient

from app.http.signal_schemas import SignalsAnswer
from app.signals.records import Format

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakes import FakeEngine
    from fastapi import FastAPI

FOLDER = Path(__file__).parents[2] / "docs" / "integrations"
ENGINES = [name for name in get_args(Format) if name != "corewrite"]


def example(engine: str, name: str) -> Any:
    """The JSON after the marker."""
    page = (FOLDER / f"{engine}.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- example:{name} -->\n```json\n(.*?)```", page, re.DOTALL)
    assert found, f"{engine}.md has no example {name}"
    return json.loads(found[1])


def rounded(value: Any) -> Any:
    """Numbers as a page shows them."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def values(query: str, text: str) -> float:
    return {("blue" in query, "blue" in text): 0.8, (True, False): 0.2}[("blue" in query, "blue" in text)]


@pytest.fixture
def ask(make_app: Callable[..., FastAPI], engine: FakeEngine) -> Callable[..., dict[str, Any]]:
    """The answer of an app whose rewriter and relevance model are those of the pages."""

    def answer(body: dict[str, Any], **options: Any) -> dict[str, Any]:
        engine.completions = lambda _: [completion("acme running shoes blue")]
        app = make_app(
            checkpoint=FakeCheckpoint(calibration=FakeCalibration(values=lambda _place: 0.8)),
            relevance=FakeRelevance(
                values=values, embedding=lambda text: [1.0, 0.0] if "blue" in text else [0.0, 1.0]
            ),
            **options,
        )
        with TestClient(app) as client:
            response = client.post("/v1/signals", json=body)
        assert response.status_code == 200
        found: dict[str, Any] = response.json()
        return found

    return answer


@pytest.mark.parametrize("engine_name", ENGINES)
def test_the_request_of_the_page_gives_the_stages_that_it_shows(
    ask: Callable[..., dict[str, Any]], engine_name: str
) -> None:
    request = example(engine_name, "request")
    assert request["format"] == engine_name
    answer = ask(request, deadline_ms=20_000, signals_deadline_ms=20_000)
    SignalsAnswer.model_validate(answer)
    assert answer["format"] == engine_name
    assert rounded(answer["stages"]) == example(engine_name, "stages")


@pytest.mark.parametrize("engine_name", ENGINES)
def test_without_a_rewrite_it_gives_the_neutral_stages_that_the_page_shows(
    ask: Callable[..., dict[str, Any]], engine_name: str
) -> None:
    answer = ask(example(engine_name, "request"), enabled=False)
    assert answer["stages"] == example(engine_name, "neutral")


def test_every_format_has_a_page_and_every_page_a_format() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.md")) == sorted(ENGINES)
