"""What the pages of docs/integrations show, held against the types of the engines' own clients.

Elastic and OpenSearch generate these from the specifications of their interfaces, and TypeScript's compiler
refuses a field that they do not know. No engine runs; Solr and Vespa publish no such types.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

PACKAGES = Path(__file__).parent / "node_modules"
PAGES = Path(__file__).parents[2] / "docs" / "integrations"
IMPORTS = """
import type { estypes } from '@elastic/elasticsearch'
import type { API } from '@opensearch-project/opensearch'
type Search = NonNullable<API.Search_Request['body']>
type Pipeline = NonNullable<API.SearchPipeline_Put_Request['body']>
"""
SEARCH = {"elasticsearch": "estypes.SearchRequest", "opensearch": "Search"}
CASES = [(engine, example) for engine in SEARCH for example in ("stages", "neutral")]


def shown(engine: str, example: str) -> dict[str, dict[str, Any]]:
    """The request that each stage puts in, by the page."""
    page = (PAGES / f"{engine}.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- example:{example} -->\n```json\n(.*?)```", page, re.DOTALL)
    assert found
    return {stage: told["request"] for stage, told in json.loads(found[1]).items()}


def complaints(folder: Path, typed: list[tuple[str, Any]]) -> list[str]:
    """What the compiler has against these values of these types."""
    (folder / "node_modules").symlink_to(PACKAGES)
    values = [f"export const v{n}: {kind} = {json.dumps(value)}" for n, (kind, value) in enumerate(typed)]
    (folder / "check.ts").write_text(IMPORTS + "\n".join(values), encoding="utf-8")
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext"]
    done = subprocess.run(
        ["node", str(PACKAGES / "typescript" / "lib" / "tsc.js"), *options, "check.ts"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return [line for line in done.stdout.splitlines() if "error TS" in line]


@pytest.mark.parametrize(("engine", "example"), CASES)
def test_the_requests_are_of_the_clients_types(tmp_path: Path, engine: str, example: str) -> None:
    typed: list[tuple[str, Any]] = []
    for request in shown(engine, example).values():
        request.pop("ltr_params", None)  # for the reader's own rescorer, as the page says
        if "search_pipeline" in request:
            # Documented, and not in the types yet: a pipeline for one request, and (since 3.1) its weights.
            pipeline = request.pop("search_pipeline")
            (processor,) = pipeline["phase_results_processors"]
            assert list(processor["score-ranker-processor"]["combination"].pop("parameters")) == ["weights"]
            typed.append(("Pipeline", pipeline))
        typed.append((SEARCH[engine], request))
    assert complaints(tmp_path, typed) == []


def test_a_rescorer_goes_into_a_search_and_a_retriever(tmp_path: Path) -> None:
    stages = shown("elasticsearch", "stages")
    rescore, retriever = stages["rawrank"]["rescore"], stages["recall"]["retriever"]
    learned = {"window_size": 100, "learning_to_rank": {"model_id": "m", "params": {"query_text": "q"}}}
    around = {"rescorer": {"retriever": retriever, "rescore": rescore}}
    typed = [
        (SEARCH["elasticsearch"], {"query": {"match_all": {}}, "rescore": [learned, rescore]}),
        (SEARCH["elasticsearch"], {"retriever": around}),
        (
            SEARCH["opensearch"],
            {"query": {"match_all": {}}, "rescore": [shown("opensearch", "stages")["rawrank"]["rescore"]]},
        ),
    ]
    assert complaints(tmp_path, typed) == []


@pytest.mark.parametrize("engine", SEARCH)
def test_the_compiler_would_say(tmp_path: Path, engine: str) -> None:
    request = shown(engine, "stages")["rawrank"]
    request["rescore"]["query"]["scoremode"] = request["rescore"]["query"].pop("score_mode")
    (complaint,) = complaints(tmp_path, [(SEARCH[engine], request)])
    assert "scoremode" in complaint
