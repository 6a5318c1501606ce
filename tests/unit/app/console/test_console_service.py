"""The page of the process: the numbers of /metrics, for people."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fakes import completion

if TYPE_CHECKING:
    from console_client import Browser
    from fakes import FakeEngine


def figure(page: str, name: str) -> str:
    found = re.search(rf"<dt>{name}</dt><dd>(.*?)</dd>", page)
    assert found is not None
    return " ".join(re.sub(r"<[^>]+>", "", found[1]).split())


def test_before_anybody_has_asked_there_is_nothing_to_tell(anybody: Browser) -> None:
    page = anybody.get("/service").text
    assert "Nobody has asked yet" in page
    assert figure(page, "cache hits") == "– of 0"  # noqa: RUF001 -- the dash of the page
    assert "breaker closed" in page


def test_what_was_asked_is_counted_by_outcome_and_reason(anybody: Browser, engine: FakeEngine) -> None:
    engine.completions = lambda query: [completion(query if query == "same" else f"{query} blue")]
    for query in ("shoes", "shoes", "same", "hats"):
        assert anybody.client.post("/v1/rewrite", json={"query": query}).status_code == 200
    anybody.client.post("/v1/rewrite", json={"query": "later", "mode": "nearline"})
    page = anybody.get("/service").text
    assert figure(page, "cache hits") == "20 % of 5"
    assert figure(page, "rewritten") == "60 % of 5"
    assert figure(page, "near-line queued") == "1"
    assert figure(page, "queries by arm") == "5 stable"
    assert "<code>no_change</code>" in page
    assert "<code>nearline</code>" in page
    assert "estimates, from the buckets of histograms" in page
    total = page.split('<th scope="row">total</th>')[1].split("</tr>")[0]
    queries, p50, p95 = re.findall(r'class="n">([^<]+)</td>', total)
    assert queries == "5"
    assert 0 < float(p50) <= float(p95)


def test_switched_off_it_says_so(browse: object) -> None:
    page = browse(enabled=False).get("/service").text  # type: ignore[operator]
    assert "REWRITE_ENABLED is false" in page
