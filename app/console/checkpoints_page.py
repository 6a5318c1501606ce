"""The pages of checkpoints: what serves, what was made from what, what the gate says of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from app.console.catalog import Shelf
from app.console.gate_report import KINDS
from app.console.lineage import tree
from app.errors import StoreError

if TYPE_CHECKING:
    from app.console.access import Viewer
    from app.console.catalog import Catalog
    from app.console.pages import Pages
    from app.console.threads import Threads
    from app.rewrite.lineup import Lineups


@dataclass(frozen=True, slots=True)
class CheckpointsPage:
    """The pages, and where they look."""

    pages: Pages
    catalog: Catalog
    lineups: Lineups
    threads: Threads

    async def show(self, _request: Request, viewer: Viewer) -> Response:
        """GET /console/checkpoints."""
        folders = await self.threads.run("the folder of checkpoints", self.catalog.folders)
        try:
            registry = await self.threads.run("the registry", self.catalog.registry)
        except StoreError as error:
            registry = Shelf(problem=f"The registry is out of reach: {error}.")
        known = {one.key: one for one in (*folders.entries, *registry.entries)}
        by_weights = {one.manifest.weights_digest: one for one in known.values()}
        served = [
            (variant, lineup.current.checkpoint, by_weights.get(lineup.current.checkpoint.weights_digest))
            for variant, lineup in (("stable", self.lineups.stable), ("canary", self.lineups.canary))
            if lineup is not None
        ]
        return await self.pages.page(
            "checkpoints.html",
            viewer,
            section="checkpoints",
            served=served,
            serving_weights={checkpoint.weights_digest for _, checkpoint, _ in served},
            registry=registry,
            branches=tree(registry.entries),
            parents={one.key: one for one in registry.entries},
            has_registry=self.catalog.has_registry,
            folders=folders,
            folder=str(self.catalog.folder),
        )

    async def one(self, request: Request, viewer: Viewer) -> Response:
        """GET /console/checkpoints/{place}/{name}."""
        where, name = request.path_params["place"], request.path_params["name"]
        entry, moves = await self.threads.run("the registry", self.catalog.one, where, name)
        return await self.pages.page(
            "checkpoint.html", viewer, section="checkpoints", one=entry, moves=moves, kinds=KINDS
        )
