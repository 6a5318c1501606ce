"""`/v1/signals` through the real app: whatever fails, the original ranking is there, in time, bit for bit."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fakes import FakeCalibration, FakeCheckpoint, FakeEngine, FakeRelevance, completion
from starlette.testclient import TestClient

from app.contracts.reasons import STAGE_REASONS, Reason
from app.engines.choice import supervised_engine
from app.errors import EngineFailedError, EngineUnavailableError, RelevanceError
from app.http import signal_examples
from app.http.signal_schemas import SignalsAnswer, SignalsRequest
from app.main import create_app
from app.relevance.base import Content
from app.rewrite.lineup import Serving
from app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastapi import FastAPI

PATIENT = {"signals_deadline_ms": 20_000, "deadline_ms": 20_000}
CANDIDATES = [
    {"id": "b", "text": "rn icu jobs", "base_score": {"rawrank": 7.25, "finerank": 0.1}},
    {"id": "a", "text": "red shoes", "base_score": {"rawrank": 12.5, "finerank": 0.7}},
    {"id": "c", "text": "rn work", "base_score": {"rawrank": -3.0, "finerank": None}},
    {"id": "d", "text": ""},
]
BODY: dict[str, Any] = {"query": "rn icu", "query_id": "q-1", "num_rewrites": 2, "candidates": CANDIDATES}


def bases(stage: str) -> list[float | None]:
    return [candidate.get("base_score", {}).get(stage) for candidate in CANDIDATES]  # type: ignore[attr-defined]


def neutral(answer: dict[str, Any], stage: str) -> bool:
    """Whether the stage is the original ranking, bit for bit."""
    documents = answer["stages"][stage]["documents"]
    assert [document["id"] for document in documents] == [candidate["id"] for candidate in CANDIDATES]
    assert [document["base_score"] for document in documents] == bases(stage)
    return [document["phi"] for document in documents] == [1.0] * len(documents) and (
        [document["score"] for document in documents] == bases(stage)
    )


def stages_of(answer: dict[str, Any]) -> dict[str, str | None]:
    return {stage: found["reason"] for stage, found in answer["stages"].items()}


def test_an_answer_is_what_the_document_says(make_app: Callable[..., FastAPI]) -> None:
    with TestClient(make_app(relevance=FakeRelevance(), **PATIENT)) as client:
        response = client.post("/v1/signals", json=BODY)
        answer = SignalsAnswer.model_validate_json(response.content)
        counted = client.get("/metrics").text
    assert (answer.query_id, answer.original, answer.degraded, answer.remembered) == (
        "q-1",
        "rn icu",
        False,
        False,
    )
    recall, rawrank, finerank = answer.stages.recall, answer.stages.rawrank, answer.stages.finerank
    assert recall
    assert rawrank
    assert finerank
    assert [query.text for query in recall.queries or ()] == ["rn icu jobs", "rn icu work"]
    assert [query.weight for query in recall.queries or ()] == pytest.approx([1.35, 1.2])
    for query in recall.queries or ():
        assert math.hypot(*query.embedding or ()) == pytest.approx(1.0)
    for ranking in (rawrank, finerank):
        assert [document.id for document in ranking.documents or ()] == ["b", "a", "c", "d"]
        assert (ranking.documents or ())[0].phi > 1
    first = (finerank.documents or ())[0]
    assert (first.base_score, first.rewrite) == (0.1, 1.0)
    assert first.score == 0.1 * first.phi
    assert 'corewrite_stages_total{outcome="signal",reason="none",stage="rawrank"} 1.0' in counted
    assert 'corewrite_stage_seconds_count{phase="model",stage="finerank"} 1.0' in counted
    assert "corewrite_remembered_searches 1.0" in counted
    assert answer.relevance_digest == FakeRelevance().digest


def test_the_examples_of_the_document_are_of_its_shape() -> None:
    assert SignalsRequest.model_validate(signal_examples.REQUEST).candidates
    for example in signal_examples.ANSWERS.values():
        assert SignalsAnswer.model_validate(example["value"]).stages.finerank


def test_only_the_stages_that_were_asked_for_are_computed(make_app: Callable[..., FastAPI]) -> None:
    relevance = FakeRelevance()
    with TestClient(make_app(relevance=relevance, **PATIENT)) as client:
        for stage, heads in (
            ("recall", ["embed_queries"]),
            ("rawrank", ["embed_queries", "embed_documents"]),
            ("finerank", ["score", "score"]),
        ):
            relevance.asked.clear()
            answer = client.post("/v1/signals", json={**BODY, "stages": [stage]}).json()
            assert list(answer["stages"]) == [stage]
            assert [head for head, _ in relevance.asked] == heads
            assert set(answer["timings_ms"]) == {"rewrite", stage, "total"}


def test_recall_and_rawrank_share_the_embeddings_of_the_rewrites(make_app: Callable[..., FastAPI]) -> None:
    relevance = FakeRelevance()
    with TestClient(make_app(relevance=relevance, **PATIENT)) as client:
        client.post("/v1/signals", json=BODY)
    assert [head for head, _ in relevance.asked] == ["embed_queries", "embed_documents", "score", "score"]


def test_the_deadline_of_signals_is_their_own(make_app: Callable[..., FastAPI]) -> None:
    with TestClient(make_app(deadline_ms=1, signals_deadline_ms=20_000)) as client:
        assert client.post("/v1/signals", json=BODY).json()["reason"] is None


@dataclass
class Case:
    """How a reason comes about."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    calibration: FakeCalibration = field(default_factory=FakeCalibration)
    relevance: FakeRelevance | None = field(default_factory=FakeRelevance)
    settings: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)


def held_out() -> EngineFailedError:
    error = EngineFailedError("as the assignment of a held-out client will say")
    error.reason = Reason.HOLDOUT
    return error


BROKEN = {head: RuntimeError("a bug") for head in ("embed_queries", "embed_documents", "score")}
CASES: dict[Reason, Callable[[], Case]] = {
    Reason.DEADLINE: lambda: Case(FakeEngine(gate=asyncio.Event()), body={"deadline_ms": 20}),
    Reason.NEARLINE: lambda: Case(body={"mode": "nearline"}),
    Reason.LOW_CONFIDENCE: lambda: Case(calibration=FakeCalibration(threshold=0.95)),
    Reason.GUARD: lambda: Case(FakeEngine(lambda query: [completion(f"{query} x", finish="length")])),
    Reason.NO_CHANGE: lambda: Case(FakeEngine(lambda query: [completion(query)])),
    Reason.ENGINE_ERROR: lambda: Case(FakeEngine(error=RuntimeError("a bug"))),
    Reason.ENGINE_UNAVAILABLE: lambda: Case(FakeEngine(error=EngineUnavailableError("stopped"))),
    Reason.INPUT_TOO_LONG: lambda: Case(body={"query": "ﷺ" * 100}),
    Reason.HOLDOUT: lambda: Case(FakeEngine(error=held_out())),
    Reason.DISABLED: lambda: Case(settings={"enabled": False}),
    Reason.RELEVANCE_UNAVAILABLE: lambda: Case(relevance=None),
    Reason.RELEVANCE_ERROR: lambda: Case(relevance=FakeRelevance(errors=BROKEN)),
    Reason.NO_CANDIDATES: lambda: Case(body={"candidates": []}),
}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_gives_the_original_ranking_with_status_200(reason: Reason) -> None:
    case = CASES[reason]()
    app = create_app(
        Settings(**{**PATIENT, **case.settings}),
        engine=case.engine,
        checkpoint=FakeCheckpoint(calibration=case.calibration),
        relevance=case.relevance,
    )
    with TestClient(app) as client:
        response = client.post("/v1/signals", json={**BODY, **case.body})
        counted = client.get("/metrics").text
    assert response.status_code == 200
    answer = response.json()
    SignalsAnswer.model_validate_json(response.content)
    assert answer["original"] == case.body.get("query", "rn icu")
    without_rewrites = reason not in STAGE_REASONS
    assert answer["degraded"] is without_rewrites
    assert (
        answer["reason"]
        == response.headers.get("x-corewrite-reason")
        == (reason if without_rewrites else None)
    )
    assert stages_of(answer) == {
        "recall": reason if without_rewrites else None,
        "rawrank": reason,
        "finerank": reason,
    }
    assert bool(answer["stages"]["recall"]["queries"]) is not without_rewrites
    for stage in ("rawrank", "finerank"):
        if reason is not Reason.NO_CANDIDATES:
            assert neutral(answer, stage)
        assert f'corewrite_stages_total{{outcome="neutral",reason="{reason}",stage="{stage}"}} 1.0' in counted


@pytest.mark.parametrize("setting", ["rawrank_weight", "finerank_weight"])
def test_a_stage_of_weight_0_is_switched_off(make_app: Callable[..., FastAPI], setting: str) -> None:
    stage = setting.removesuffix("_weight")
    with TestClient(make_app(relevance=FakeRelevance(), **PATIENT, **{setting: 0})) as client:
        answer = client.post("/v1/signals", json=BODY).json()
    assert stages_of(answer) == {"recall": None, "rawrank": None, "finerank": None, stage: "disabled"}
    assert neutral(answer, stage)


def test_a_largest_factor_of_1_is_neutral(make_app: Callable[..., FastAPI]) -> None:
    with TestClient(make_app(relevance=FakeRelevance(), max_factor=1, **PATIENT)) as client:
        answer = client.post("/v1/signals", json=BODY).json()
    assert neutral(answer, "rawrank")
    assert neutral(answer, "finerank")


@pytest.mark.parametrize(
    ("head", "late"),
    [
        ("score", {"finerank"}),
        ("embed_documents", {"rawrank", "finerank"}),
        ("embed_queries", {"rawrank", "finerank"}),
    ],
)
def test_a_model_that_hangs_is_cut_off_and_the_stages_before_it_are_answered(
    make_app: Callable[..., FastAPI], head: str, late: set[str]
) -> None:
    relevance = FakeRelevance(gates={head: asyncio.Event()})
    with TestClient(make_app(relevance=relevance, **PATIENT)) as client:
        answer = client.post("/v1/signals", json={**BODY, "deadline_ms": 700}).json()
        assert answer["reason"] is None
        for stage in ("rawrank", "finerank"):
            assert stages_of(answer)[stage] == ("deadline" if stage in late else None)
            assert neutral(answer, stage) is (stage in late)
        recall = answer["stages"]["recall"]
        assert len(recall["queries"]) == 2
        assert recall["reason"] is None
        assert recall["embedding_reason"] == ("deadline" if head == "embed_queries" else None)
        assert relevance.running == 0
        assert relevance.cancelled == (2 if head == "score" else 1)  # two rewrites are scored


@pytest.mark.parametrize(
    ("errors", "reasons"),
    [
        ({"score": RelevanceError("no session")}, {"finerank": "relevance_unavailable"}),
        ({"embed_documents": RelevanceError("no session")}, {"rawrank": "relevance_unavailable"}),
        ({"similarity": RuntimeError("a bug")}, {"rawrank": "relevance_error"}),
        ({"embed_queries": RuntimeError("a bug")}, {"rawrank": "relevance_error"}),
    ],
)
def test_a_model_that_raises_loses_only_the_stage_it_was_for(
    make_app: Callable[..., FastAPI], errors: dict[str, BaseException], reasons: dict[str, str]
) -> None:
    with TestClient(make_app(relevance=FakeRelevance(errors=errors), **PATIENT)) as client:
        answer = client.post("/v1/signals", json=BODY).json()
    assert stages_of(answer) == {"recall": None, "rawrank": None, "finerank": None, **reasons}
    assert all(neutral(answer, stage) for stage in reasons)
    assert len(answer["stages"]["recall"]["queries"]) == 2


def test_scores_that_are_no_numbers_are_neutral_and_the_others_count(
    make_app: Callable[..., FastAPI],
) -> None:
    def values(query: str, text: str) -> float:
        return {"red shoes": math.nan, "": math.inf, "rn work": 0.0}.get(
            text, 0.9 if "jobs" in query else 0.3
        )

    def unsure(query: str, text: str) -> float:
        return 0.2 if text == "red shoes" else values(query, text)

    for say, moved in ((values, [False, False, False, False]), (unsure, [True, True, False, False])):
        with TestClient(make_app(relevance=FakeRelevance(values=say), **PATIENT)) as client:
            response = client.post("/v1/signals", json=BODY)
        documents = response.json()["stages"]["finerank"]["documents"]
        assert [document["phi"] != 1.0 for document in documents] == moved
        assert [document["rewrite"] for document in documents][2:] == [None, None]
        assert b"NaN" not in response.content
        assert b"Infinity" not in response.content


def test_a_model_of_nothing_but_nan_is_an_error(make_app: Callable[..., FastAPI]) -> None:
    relevance = FakeRelevance(values=lambda _query, _text: math.nan, embedding=lambda _text: [math.nan, 1.0])
    with TestClient(make_app(relevance=relevance, **PATIENT)) as client:
        response = client.post("/v1/signals", json=BODY)
    answer = response.json()
    assert stages_of(answer) == {"recall": None, "rawrank": "relevance_error", "finerank": "relevance_error"}
    assert answer["stages"]["recall"]["embedding_reason"] == "relevance_error"
    assert [query["embedding"] for query in answer["stages"]["recall"]["queries"]] == [None, None]
    assert neutral(answer, "rawrank")
    assert neutral(answer, "finerank")
    assert b"NaN" not in response.content


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The app on this event loop, where a cancelled client is a cancelled request."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://test", timeout=30
        ) as client,
    ):
        yield client


@dataclass
class ToldRelevance(FakeRelevance):
    """Says when it is asked to score."""

    scoring: asyncio.Event = field(default_factory=asyncio.Event)

    async def score(self, query: str, documents: Any) -> list[float]:
        self.scoring.set()
        return await super().score(query, documents)


def test_cancelling_a_request_cancels_its_work_and_frees_its_place(make_app: Callable[..., FastAPI]) -> None:
    async def scenario() -> None:
        relevance = ToldRelevance(gates={"score": asyncio.Event()})
        async with serving(make_app(relevance=relevance, max_signals=1, **PATIENT)) as client:
            request = asyncio.create_task(client.post("/v1/signals", json=BODY))
            await relevance.scoring.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            relevance.gates.clear()
            answer = (await client.post("/v1/signals", json=BODY)).json()
            assert stages_of(answer)["finerank"] is None
            assert (relevance.running, relevance.cancelled) == (0, 2)

    asyncio.run(scenario())


def test_more_than_may_wait_are_shed_and_a_draining_server_says_so(make_app: Callable[..., FastAPI]) -> None:
    async def scenario() -> None:
        relevance = ToldRelevance(gates={"score": asyncio.Event()})
        app = make_app(relevance=relevance, max_signals=1, max_wait_ms=0, **PATIENT)
        async with serving(app) as client:
            first = asyncio.create_task(client.post("/v1/signals", json=BODY))
            await relevance.scoring.wait()
            shed = await client.post("/v1/signals", json=BODY)
            assert (shed.status_code, shed.json()["error"], shed.headers["retry-after"]) == (
                429,
                "overloaded",
                "1",
            )
            draining = asyncio.create_task(app.state.lifecycle.drain())
            relevance.gates["score"].set()
            assert (await first).status_code == 200
            assert await draining
            refused = await client.post("/v1/signals", json=BODY)
            assert (refused.status_code, refused.json()["error"]) == (503, "draining")

    asyncio.run(scenario())


def test_a_request_whose_time_passed_in_the_queue_is_neutral(make_app: Callable[..., FastAPI]) -> None:
    async def scenario() -> None:
        relevance = ToldRelevance(gates={"score": asyncio.Event()})
        app = make_app(relevance=relevance, max_signals=1, max_wait_ms=10_000, **PATIENT)
        async with serving(app) as client:
            first = asyncio.create_task(client.post("/v1/signals", json=BODY))
            await relevance.scoring.wait()
            late = (
                await client.post("/v1/signals", json={**BODY, "query_id": "q-2", "deadline_ms": 20})
            ).json()
            assert set(stages_of(late).values()) == {"deadline"}
            assert neutral(late, "finerank")
            relevance.gates["score"].set()
            assert (await first).json()["reason"] is None

    asyncio.run(scenario())


OTHER = "0f" * 32


def swap(app: FastAPI) -> None:
    """Another checkpoint serves from now on, and writes something else."""
    engine = FakeEngine(lambda query: [completion(f"{query} anew")], weights_digest=OTHER, answers_with=OTHER)
    other = FakeCheckpoint(id="fake-2", weights_digest=OTHER, model_digest=OTHER)
    app.state.lineup.switch(
        Serving(other, supervised_engine(Settings(), other, instead=engine, on_restart=print))
    )


def shared(answer: dict[str, Any]) -> tuple[Any, ...]:
    """What all stages of a search have in common."""
    return answer["arm"], answer["checkpoint"], answer["rewrites"], answer["reason"]


@pytest.mark.parametrize("reason", [None, "no_change"])
def test_stages_that_come_in_separate_calls_share_their_rewrites_through_a_swap(
    make_app: Callable[..., FastAPI], engine: FakeEngine, reason: str | None
) -> None:
    if reason:
        engine.completions = lambda query: [completion(query)]
    app = make_app(relevance=FakeRelevance(), **PATIENT)
    with TestClient(app) as client:
        answers = [client.post("/v1/signals", json={**BODY, "stages": ["recall"]}).json()]
        client.portal.call(swap, app)  # type: ignore[union-attr]
        answers += [
            client.post("/v1/signals", json={**BODY, "stages": [stage]}).json()
            for stage in ("rawrank", "finerank")
        ]
        other = client.post("/v1/signals", json={**BODY, "query_id": "q-2"}).json()
    assert [answer["remembered"] for answer in answers] == [False, True, True]
    assert [shared(answer) for answer in answers] == [shared(answers[0])] * 3
    assert answers[0]["reason"] == reason
    assert [list(answer["stages"]) for answer in answers] == [["recall"], ["rawrank"], ["finerank"]]
    assert other["checkpoint"] == {"id": "fake-2", "weights_digest": OTHER}
    assert [rewrite["text"] for rewrite in other["rewrites"]] == ["rn icu anew"]


@pytest.mark.parametrize(
    "change",
    [
        {"query_id": "q-2"},
        {"query": "rn icu night"},
        {"context": {"previous_queries": ["nurse"]}},
        {"locale": "de"},
        {"client_id": "c-2"},
    ],
)
def test_another_search_is_not_answered_from_memory(
    make_app: Callable[..., FastAPI], change: dict[str, Any]
) -> None:
    with TestClient(make_app(**PATIENT)) as client:
        client.post("/v1/signals", json=BODY)
        assert client.post("/v1/signals", json={**BODY, **change}).json()["remembered"] is False
        assert client.post("/v1/signals", json=BODY).json()["remembered"] is True


def test_memory_is_bounded_in_number_and_time(make_app: Callable[..., FastAPI]) -> None:
    for options in ({"signal_memory_entries": 0}, {"signal_memory_s": 1e-9}):
        with TestClient(make_app(**PATIENT, **options)) as client:
            assert [client.post("/v1/signals", json=BODY).json()["remembered"] for _ in range(2)] == [
                False
            ] * 2
    with TestClient(make_app(**PATIENT, signal_memory_entries=1)) as client:
        for query_id in ("q-1", "q-2", "q-1"):
            answer = client.post("/v1/signals", json={**BODY, "query_id": query_id}).json()
            assert answer["remembered"] is False


def test_calls_at_the_same_time_share_the_first_answer(
    make_app: Callable[..., FastAPI], engine: FakeEngine
) -> None:
    async def scenario() -> None:
        engine.gate = asyncio.Event()
        app = make_app(relevance=FakeRelevance(), **PATIENT)
        async with serving(app) as client:
            calls = [
                asyncio.create_task(client.post("/v1/signals", json={**BODY, **change}))
                for change in ({"deadline_ms": 20}, {"num_rewrites": 1})
            ]
            late = (await calls[0]).json()
            engine.gate.set()
            answers = [late, (await calls[1]).json()]
        assert [answer["reason"] for answer in answers] == ["deadline", "deadline"]
        assert [answer["remembered"] for answer in answers] == [False, True]

    asyncio.run(scenario())


def test_a_later_call_may_take_fewer_rewrites(make_app: Callable[..., FastAPI]) -> None:
    with TestClient(make_app(relevance=FakeRelevance(), **PATIENT)) as client:
        counts = [
            len(client.post("/v1/signals", json={**BODY, "num_rewrites": n}).json()["rewrites"])
            for n in (3, 1, 4)
        ]
    assert counts == [3, 1, 3]


def one(**fields: Any) -> dict[str, Any]:
    return {"query": "rn", "candidates": [{"id": "a", "text": "x", **fields}]}


@pytest.mark.parametrize(
    ("body", "start"),
    [
        ({"query": "rn", "candidates": [{"id": str(n), "text": ""} for n in range(1001)]}, "candidates: "),
        ({"query": "rn", "candidates": [{"id": "a", "text": "x"}] * 2}, "candidates: Value error, each id"),
        ({"query": "rn", "candidates": [{"id": "a"}]}, "candidates.0.text: Field required"),
        ({"query": "rn", "format": "lucene"}, "format: "),
        ({"query": "rn", "stages": ["rerank"]}, "stages.0: "),
        (one(id=""), "candidates.0.id: "),
        (one(id="x" * 129), "candidates.0.id: "),
        (one(text="x" * 4097), "candidates.0.text: "),
        (one(text=None), "candidates.0.text: "),
        (one(image=[0.5] * 1025), "candidates.0.image: "),
        (one(image=[]), "candidates.0.image: "),
        (one(image=["1"]), "candidates.0.image.0: "),
        (
            one(image=[0.5] * 3),
            "candidates.0.image: must have 4 numbers, which the relevance model reads, not 3",
        ),
        (one(base_score=0.5), "candidates.0.base_score: must be an object"),
        (one(base_score={"ranking": 1}), "candidates.0.base_score.ranking: unknown field"),
        (one(base_score={"rawrank": "1"}), "candidates.0.base_score.rawrank: "),
        (one(base_score={"rawrank": True}), "candidates.0.base_score.rawrank: "),
        (one(score=1), "candidates.0.score: unknown field"),
    ],
)
def test_limits_name_the_field(make_app: Callable[..., FastAPI], body: dict[str, Any], start: str) -> None:
    with TestClient(make_app(relevance=FakeRelevance(image_dim=4), **PATIENT)) as client:
        response = client.post("/v1/signals", json=body)
    assert (response.status_code, response.json()["error"]) == (422, "invalid_request")
    assert response.json()["detail"].startswith(start)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400])
@pytest.mark.parametrize(
    ("field", "place"),
    [('"base_score": {{"finerank": {}}}', "base_score.finerank"), ('"image": [0.5, {}]', "image.1")],
)
def test_a_number_that_is_not_finite_is_refused_by_name(
    make_app: Callable[..., FastAPI], number: str, field: str, place: str
) -> None:
    body = f'{{"query": "rn", "candidates": [{{"id": "a", "text": "x", {field.format(number)}}}]}}'
    with TestClient(make_app(**PATIENT)) as client:
        response = client.post("/v1/signals", content=body)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(f"candidates.0.{place}: Input should be a finite number")


def test_the_largest_request_is_taken(make_app: Callable[..., FastAPI]) -> None:
    body = {
        **BODY,
        "candidates": [
            {"id": f"{n:0128}", "text": "x" * 4096, "image": [0.5, -1, 2e-3, 1e9]} for n in range(1000)
        ],
    }
    with TestClient(make_app(relevance=FakeRelevance(image_dim=4), **PATIENT)) as client:
        response = client.post("/v1/signals", json=body)
    assert response.status_code == 200
    assert len(response.json()["stages"]["finerank"]["documents"]) == 1000


def test_bodies_beyond_the_limit_are_413(make_app: Callable[..., FastAPI]) -> None:
    with TestClient(make_app(max_signals_body_bytes=1024)) as client:
        assert client.post("/v1/signals", content=b"x" * 1024).status_code == 422
        assert client.post("/v1/signals", content=b"x" * 1025).status_code == 413


def test_a_model_that_reads_no_images_ignores_them(make_app: Callable[..., FastAPI]) -> None:
    relevance = FakeRelevance(image_dim=0)
    with TestClient(make_app(relevance=relevance, **PATIENT)) as client:
        response = client.post("/v1/signals", json=one(image=[0.5, 0.25, 1]))
    assert response.status_code == 200
    contents = [content for _, what in relevance.asked for content in what if isinstance(content, Content)]
    assert {content.image for content in contents} == {None}


def test_the_log_has_the_stages_and_no_text(
    make_app: Callable[..., FastAPI], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="corewrite")
    with TestClient(make_app(**PATIENT)) as client:
        client.post("/v1/signals", json={**BODY, "stages": ["recall", "rawrank"]})
    fields = next(record.fields for record in caplog.records if record.getMessage() == "request")  # type: ignore[attr-defined]
    assert fields["stages"] == {"recall": None, "rawrank": "relevance_unavailable"}
    assert (fields["candidates"], fields["remembered"], fields["arm"]) == (4, False, "stable")
    assert "rn icu" not in json.dumps(fields)
