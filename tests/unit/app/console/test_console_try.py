"""The page that tries a query, over fakes: it shows what `/v1/signals` would say, and counts nowhere."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from fakes import FakeCalibration, FakeCheckpoint, FakeRelevance, completion

from app.errors import RelevanceError

if TYPE_CHECKING:
    from console_client import Browser
    from fakes import FakeEngine

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=y> & {{7*7}}"
LINES = "3 | red shoes\n2 | blue shoes\n1 | green hat"
SLOW = {"deadline_ms": 20_000, "signals_deadline_ms": 20_000}


def rows(page: str, ranking: str) -> list[list[str]]:
    """The cells of a table, without the words for those who do not see it."""
    table = page.split(f'aria-label="{ranking}"', 1)[1].split("</table>", 1)[0]
    found = []
    for row in re.findall(r"<tr[^>]*>(.*?)</tr>", table.split("<tbody>", 1)[1], re.DOTALL):
        cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)
        bare = [re.sub(r'<span class="unseen">.*?</span>|<[^>]+>', "", cell) for cell in cells]
        found.append([" ".join(html.unescape(cell).split()) for cell in bare])
    return found


@pytest.fixture
def seen(browse: Callable[..., Browser], engine: FakeEngine) -> Browser:
    """A rewriter that adds "blue", and a relevance model that knows it."""
    engine.completions = lambda query: [completion(f"{query} blue")]
    return browse(relevance=FakeRelevance(), **SLOW)


def test_the_first_click_shows_the_rewrite_and_both_rankings(seen: Browser) -> None:
    page = seen.get("").text
    assert 'value="in blue"' in page
    answer = seen.post("", {"query": "shoes", "candidates": LINES})
    assert answer.status_code == 200
    assert [row[1] for row in rows(answer.text, "Rewrites")] == ["shoes blue"]
    assert [(row[1], row[2]) for row in rows(answer.text, "Original ranking")] == [
        ("red shoes", "3"),
        ("blue shoes", "2"),
        ("green hat", "1"),
    ]
    new = rows(answer.text, "Ranking with the rewrites")
    assert [(row[1], row[2]) for row in new] == [
        ("▲1", "blue shoes"),
        ("▼1", "red shoes"),
        ("=", "green hat"),
    ]


def test_the_factors_are_those_of_the_interface(seen: Browser) -> None:
    asked = {
        "query": "shoes",
        "candidates": [
            {"id": str(place), "text": line.split(" | ")[1], "base_score": {"finerank": float(line[0])}}
            for place, line in enumerate(LINES.split("\n"))
        ],
    }
    told = seen.client.post("/v1/signals", json=asked).json()["stages"]["finerank"]["documents"]
    expected = {asked["candidates"][int(one["id"])]["text"]: one for one in told}  # type: ignore[index]
    new = rows(seen.post("", {"query": "shoes", "candidates": LINES}).text, "Ranking with the rewrites")
    assert len(new) == len(expected) == 3
    for _, _, text, _, phi, score in new:
        assert float(phi.replace("−", "-")) == pytest.approx(expected[text]["phi"], rel=0.01)  # noqa: RUF001
        assert float(score.replace("−", "-")) == pytest.approx(expected[text]["score"], rel=0.01)  # noqa: RUF001


@pytest.mark.parametrize("stage", ["finerank", "rawrank"])
def test_without_scores_the_original_is_ranked_by_its_own_relevance(seen: Browser, stage: str) -> None:
    answer = seen.post("", {"query": "shoes", "candidates": "green hat\nshoes", "stage": stage})
    assert "B is the relevance of the original query" in answer.text
    assert [row[1] for row in rows(answer.text, "Original ranking")] == ["shoes", "green hat"]


def test_a_neutral_answer_says_why_and_that_nothing_moves(
    browse: Callable[..., Browser], engine: FakeEngine
) -> None:
    engine.completions = lambda query: [completion(query)]
    page = browse(relevance=FakeRelevance(), **SLOW).post("", {"query": "shoes", "candidates": LINES}).text
    assert "No rewrite: <code>no_change</code>." in page
    assert "both rankings are identical" in page
    old, new = (rows(page, name) for name in ("Original ranking", "Ranking with the rewrites"))
    assert [row[1] for row in old] == [row[2] for row in new]
    assert {row[4] for row in new} == {"1"}
    assert [row[2] for row in old] == [row[5] for row in new]


def test_without_a_relevance_model_the_order_is_the_one_given(anybody: Browser) -> None:
    page = anybody.post("", {"query": "shoes", "candidates": "b\na"}).text
    assert "the order is the one given" in page
    assert "<code>relevance_unavailable</code>" in page
    assert [row[1:] for row in rows(page, "Original ranking")] == [["b", "–"], ["a", "–"]]  # noqa: RUF001


def test_a_relevance_model_that_fails_fails_nothing(browse: Callable[..., Browser]) -> None:
    model = FakeRelevance(errors={"score": RelevanceError("gone")})
    answer = browse(relevance=model, **SLOW).post("", {"query": "shoes", "candidates": "b\na"})
    assert answer.status_code == 200
    assert "the order is the one given" in answer.text


def test_without_documents_there_are_rewrites_alone(seen: Browser) -> None:
    page = seen.post("", {"query": "shoes", "num_rewrites": "1"}).text
    assert "there is nothing to rank" in page
    assert "shoes blue" in page


def test_what_came_in_is_text_and_nothing_else(seen: Browser, engine: FakeEngine) -> None:
    engine.completions = lambda _: [completion(f"shoes {HOSTILE}")]
    fields = dict.fromkeys(("query", "title", "text", "previous"), HOSTILE)
    answer = seen.post("", {**fields, "candidates": f"1 | {HOSTILE}"})
    assert answer.status_code == 200
    assert answer.text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6
    assert "{{7*7}}" in answer.text
    for word in ("<script>alert", "<img src=x"):
        assert word not in answer.text


def test_a_malformed_query_keeps_what_was_typed(seen: Browser) -> None:
    answer = seen.post("", {"query": "a\x07b", "title": "Shoes of mine", "candidates": "1 | kept"})
    assert answer.status_code == 422
    assert "query: must have a visible character and no control characters" in answer.text
    assert 'value="Shoes of mine"' in answer.text
    assert "1 | kept" in answer.text


def test_only_who_is_logged_in_chooses_an_arm(seen: Browser, stranger: Browser) -> None:
    assert 'name="arm"' not in seen.get("").text
    assert "<dd>stable</dd>" in seen.post("", {"query": "shoes", "arm": "holdout"}).text
    stranger.log_in()
    answer = stranger.send("", query="shoes", arm="holdout")
    assert "<dd>holdout</dd>" in answer.text
    assert "<code>holdout</code>" in answer.text
    assert stranger.send("", query="shoes", arm="gold").status_code == 422


def test_the_checkpoint_that_wrote_it_is_named(browse: Callable[..., Browser]) -> None:
    checkpoint = FakeCheckpoint(id="weekly-12", calibration=FakeCalibration(values=lambda _: 0.123))
    page = browse(checkpoint=checkpoint, min_confidence=0.0, **SLOW).post("", {"query": "shoes"}).text
    assert "weekly-12" in page
    assert "0.123" in page
