"""make_console: where the pages meet what they show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.console.access import Access
from app.console.catalog import Catalog
from app.console.checkpoints_page import CheckpointsPage
from app.console.pages import Pages
from app.console.rollout_page import RolloutPage
from app.console.routes import Console
from app.console.service_page import ServicePage
from app.console.try_page import TryPage

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.console.threads import Threads
    from app.http.bearer import Bearer
    from app.logs import QueryFingerprint
    from app.rewrite.lineup import Lineups
    from app.rollout.replica import RolloutReplica
    from app.rollout.traffic import Traffic
    from app.settings import Settings
    from app.signals.heads import Heads
    from app.signals.service import SignalService
    from app.telemetry import Metrics


def make_console(
    settings: Settings,
    *,
    bearer: Bearer,
    signals: SignalService,
    heads: Heads,
    lineups: Lineups,
    traffic: Traffic,
    rollouts: RolloutReplica | None,
    threads: Threads,
    metrics: Metrics,
    fingerprint: QueryFingerprint,
    clock: Callable[[], float],
    version: str,
) -> Console:
    """Return the console over the parts of an app."""

    def common() -> dict[str, Any]:
        return {
            "serving": lineups.stable.current.checkpoint,
            "killed": traffic.killed,
            "enabled": settings.enabled,
            "version": version,
        }

    pages = Pages(common, threads)
    access = Access(bearer, timeout_s=settings.body_timeout_s)
    catalog = Catalog(settings)
    return Console(
        pages=pages,
        access=access,
        trial=TryPage(settings, pages, access, signals, heads, fingerprint, clock),
        rollout=RolloutPage(pages, access, rollouts, traffic, catalog, threads),
        checkpoints=CheckpointsPage(pages, catalog, lineups, threads),
        service=ServicePage(settings, pages, metrics),
    )
