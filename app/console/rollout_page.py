"""The page of the rollout: what is known of it as it grows, and buttons, each with a page that asks again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from app.console.access import PATH
from app.console.acts import ACTS, agrees, open_acts, said, seen_of
from app.console.rollout_view import metrics_of
from app.errors import BadRequestError, CorewriteError, ForbiddenError, RolloutError
from app.rollout import LAUNCH
from app.rollout.traffic import ASKED

if TYPE_CHECKING:
    from app.console.access import Access, Viewer
    from app.console.catalog import Catalog
    from app.console.pages import Pages
    from app.console.threads import Threads
    from app.rollout.replica import RolloutReplica
    from app.rollout.state import Rollout
    from app.rollout.traffic import Traffic

REFRESH_S = 5
MOST_LINES = 100
"""Of the history, the last ones."""
_MAX_FORM_BYTES = 131_072  # of the longest plan, most characters of it escaped
_MAX_PLAN_CHARS = 32_768
_MAX_WORDS = 200
_ALONE = "This replica gives everybody the original; others were not told. "
_FIELDS = {"who": "", "why": "", "checkpoint": "", "name": "", "ungated": ""}


@dataclass(frozen=True, slots=True)
class RolloutPage:
    """The page, and what may be asked of rollouts; `rollouts` is None where there is no store."""

    pages: Pages
    access: Access
    rollouts: RolloutReplica | None
    traffic: Traffic
    catalog: Catalog
    threads: Threads

    async def show(self, request: Request, viewer: Viewer) -> Response:
        """GET /console/rollout."""
        done = ACTS.get(request.query_params.get("done", ""))
        if self.rollouts is None:
            return await self.pages.page("rollout.html", viewer, section="rollout", there=False, done=None)
        facts: dict[str, Any] = {"status": None, "problem": None, "metrics": [], "history": []}
        try:
            facts |= await self.threads.run("the store of rollouts", self._read)
        except CorewriteError as error:
            facts["problem"] = str(error)
        rollout = (facts["status"] or {}).get("rollout")
        state = rollout and rollout["last"]["state"]
        live = state in {"preparing", "running", "paused"}
        killed = ASKED in self.traffic.stopped or bool(facts["status"] and facts["status"]["killed"])
        return await self.pages.page(
            "rollout.html",
            viewer,
            section="rollout",
            there=True,
            done=done,
            rollout=rollout,
            state=state,
            live=live,
            acts={name: ACTS[name] for name in open_acts(state, live=live, killed=killed)},
            seconds=REFRESH_S,
            stopped=sorted(self.traffic.stopped),
            **facts,
        )

    async def confirm(self, request: Request, viewer: Viewer) -> Response:
        """GET /console/rollout/{act}."""
        act = self._act_of(request, viewer)
        fields = {"checkpoint": request.query_params.get("checkpoint", "")}
        return await self._asks(viewer, act, fields)

    async def act(self, request: Request, viewer: Viewer) -> Response:
        """POST /console/rollout/{act}."""
        act = self._act_of(request, viewer)
        fields = await self.access.form(request, viewer, most=_MAX_FORM_BYTES)
        stopped = False
        try:
            who, why = (_words(fields, name) for name in ("who", "why"))
            request.scope["corewrite"].log["detail"] = f"console: {act}"
            if stopped := act == "kill":  # whether or not the store can be reached
                self.traffic.stopped.add(ASKED)
            await self.threads.run("the store of rollouts", self._do, act, fields, who, why)
        except CorewriteError as error:
            problem = f"{_ALONE if stopped else ''}{error}"
            return await self._asks(viewer, act, fields, http_status=error.status, problem=problem)
        if act == "revive":
            self.traffic.stopped.discard(ASKED)
        return self.pages.redirect(f"{PATH}/rollout?done={act}")

    def _act_of(self, request: Request, viewer: Viewer) -> str:
        """Raises ForbiddenError or BadRequestError where it cannot be done here."""
        act = str(request.path_params["act"])
        if act not in ACTS:
            raise BadRequestError(f"there is nothing of that name to do: {', '.join(ACTS)}")
        if not viewer.may_act:
            raise ForbiddenError("set REWRITE_ADMIN_TOKEN, and log in with it, to change anything here")
        if self.rollouts is None:
            raise ForbiddenError("set REWRITE_ROLLOUTS to where rollouts are kept")
        return act

    async def _asks(
        self,
        viewer: Viewer,
        act: str,
        fields: dict[str, str],
        *,
        http_status: int = 200,
        problem: str | None = None,
    ) -> Response:
        """Return the page that says what would happen, and asks who wants it and why."""
        rollout, choices = None, []
        try:
            rollout = await self.threads.run("the store of rollouts", self._latest)
            if act == "start":
                choices = await self.threads.run("the registry", self.catalog.startable)
        except CorewriteError as error:
            problem = problem or str(error)
        plan = fields.get("plan") or (LAUNCH.read_text(encoding="utf-8") if act == "start" else "")
        return await self.pages.page(
            "confirm.html",
            viewer,
            section="rollout",
            http_status=http_status,
            problem=problem,
            name=act,
            act=ACTS[act],
            says=said(ACTS[act], rollout),
            rollout=rollout,
            seen=seen_of(rollout),
            fields={**_FIELDS, **fields, "plan": plan},
            choices=choices,
        )

    def _read(self) -> dict[str, Any]:
        assert self.rollouts is not None  # noqa: S101 -- asked for by those who have looked
        orders = self.rollouts.orders
        status, looks = orders.status(), orders.growth()
        metrics = metrics_of(status["rollout"], looks) if status["rollout"] else []
        return {"status": status, "metrics": metrics, "history": orders.history()[: -MOST_LINES - 1 : -1]}

    def _latest(self) -> Rollout | None:
        assert self.rollouts is not None  # noqa: S101 -- as above
        return self.rollouts.orders.store.deployment().latest

    def _do(self, act: str, fields: dict[str, str], who: str, why: str) -> None:
        """Raises CorewriteError where it cannot be done; it blocks."""
        assert self.rollouts is not None  # noqa: S101 -- as above
        orders = self.rollouts.orders
        if act in {"kill", "revive"}:
            orders.store.switch(killed=act == "kill", who=who, why=why, at=orders.now())
            return
        if act == "start":
            plan = fields.get("plan", "")
            if len(plan) > _MAX_PLAN_CHARS:
                raise BadRequestError(f"plan: must have at most {_MAX_PLAN_CHARS} characters")
            orders.start(
                _words(fields, "checkpoint"),
                plan,
                who=who,
                why=why,
                name=fields.get("name", "").strip() or None,
                ungated=fields.get("ungated") == "yes",
            )
            return
        if not agrees(act, fields.get("seen", ""), self._latest()):
            raise RolloutError("the rollout has moved since you looked; read again what would happen now")
        orders.order(act, who=who, why=why)  # type: ignore[arg-type]


def _words(fields: dict[str, str], name: str) -> str:
    text = fields.get(name, "").strip()
    if not 1 <= len(text) <= _MAX_WORDS or not text.isprintable():
        raise BadRequestError(f"{name}: must have 1 to {_MAX_WORDS} characters, all of them visible")
    return text
