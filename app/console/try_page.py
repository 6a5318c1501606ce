"""The page that tries a query: original and rewrites, and the two rankings side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from starlette.requests import Request
from starlette.responses import Response

from app.console import trial
from app.console.examples import EXAMPLES
from app.console.words import REASONS
from app.contracts.reasons import Reason
from app.errors import BadRequestError, CorewriteError
from app.rewrite.deadline import deadline_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from app.console.access import Access, Viewer
    from app.console.pages import Pages
    from app.http.middleware import Exchange
    from app.logs import QueryFingerprint
    from app.rewrite.deadline import Deadline
    from app.rollout.assignment import Arm
    from app.settings import Settings
    from app.signals.heads import Heads
    from app.signals.records import Candidate, RankingStage
    from app.signals.service import SignalService


@dataclass(frozen=True, slots=True)
class TryPage:
    """The page, and what it asks: the very services that `/v1/signals` asks."""

    settings: Settings
    pages: Pages
    access: Access
    signals: SignalService
    heads: Heads
    fingerprint: QueryFingerprint
    clock: Callable[[], float]

    async def show(self, request: Request, viewer: Viewer) -> Response:
        """GET /console."""
        name = request.query_params.get("example", next(iter(EXAMPLES)))
        return await self._page(viewer, trial.fields_of(EXAMPLES.get(name, {})), example=name)

    async def ask(self, request: Request, viewer: Viewer) -> Response:
        """POST /console."""
        given = await self.access.form(request, viewer, most=self.settings.max_body_bytes)
        fields = trial.fields_of(given)
        try:
            result = await self._result(request, viewer, fields)
        except CorewriteError as error:  # shed, or malformed: what was typed is not lost
            return await self._page(viewer, fields, status=error.status, problem=str(error))
        return await self._page(viewer, fields, result=result)

    async def _page(
        self,
        viewer: Viewer,
        fields: dict[str, str],
        *,
        status: int = 200,
        problem: str | None = None,
        result: dict[str, Any] | None = None,
        example: str | None = None,
    ) -> Response:
        return await self.pages.page(
            "try.html",
            viewer,
            section="try",
            http_status=status,
            fields=fields,
            problem=problem,
            result=result,
            example=example,
            examples=EXAMPLES,
            arms=trial.ARMS,
            stages=trial.STAGES,
        )

    async def _result(self, request: Request, viewer: Viewer, fields: dict[str, str]) -> dict[str, Any]:
        asked, stage = trial.request_of(fields), cast("RankingStage", fields["stage"])
        arm = fields["arm"] if viewer.may_act else trial.ARMS[0]
        if arm not in trial.ARMS:
            raise BadRequestError(f"arm: must be one of {', '.join(trial.ARMS)}")
        # A forced arm counts nowhere in an experiment, and nothing here counts the answer.
        query = replace(asked.to_query(), arm=cast("Arm", arm))
        exchange: Exchange = request.scope["corewrite"]
        exchange.log.update(self.fingerprint.fields(query.text), candidates=len(asked.candidates), arm=arm)
        candidates = [candidate.to_candidate() for candidate in asked.candidates]
        base, without = "given", None
        if candidates and all(getattr(one, stage) is None for one in candidates):
            scores = await self._original(query.text, candidates, stage)
            base, without = ("order", scores) if isinstance(scores, Reason) else ("relevance", None)
            if not isinstance(scores, Reason):
                candidates = trial.with_base(candidates, stage, scores)
        signals = await self.signals.signals(query, candidates, self._deadline())
        answer, ranking = signals.answer, getattr(signals, stage)
        exchange.log.update(num_rewrites=len(answer.rewrites), reason=answer.reason)
        texts = {candidate.id: candidate.content.text for candidate in candidates}
        before, after = trial.rankings(ranking.documents, texts)
        moved = any(row.moved for row in after)
        return {
            "answer": answer,
            "meaning": answer.reason and REASONS[answer.reason],
            "recall": signals.recall,
            "relevance_digest": signals.relevance_digest,
            "seconds": signals.seconds,
            "stage": stage,
            "neutral": ranking.reason,
            "neutral_meaning": ranking.reason and REASONS[ranking.reason],
            "base": base,
            "without": without and REASONS[without],
            "before": before,
            "after": after,
            "moved": moved,
            "reach": lambda phi: trial.reach(phi, self.settings.max_factor),
            "max_factor": self.settings.max_factor,
        }

    async def _original(
        self, text: str, candidates: Sequence[Candidate], stage: RankingStage
    ) -> list[float | None] | Reason:
        """Return the relevance of the original query to each candidate, by the model of the stage."""
        deadline, documents = self._deadline(), [candidate.content for candidate in candidates]
        if stage == "finerank":
            found = await self.heads.scores([text], documents, deadline)
        else:
            embedded = await self.heads.embed([text], deadline)
            if isinstance(embedded, Reason):
                return embedded
            found = await self.heads.similarities(embedded, documents, deadline)
        return found if isinstance(found, Reason) else found[0]

    def _deadline(self) -> Deadline:
        return deadline_of(
            self.clock(), body_ms=None, header_ms=None, default_ms=self.settings.signals_deadline_ms
        )
