"""The service as it is run in production, for a proof: several replicas, one PostgreSQL, one registry."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.canary.postgres import PostgresServer, running_postgres
from training.canary.processes import ProcessError, Replica
from training.canary.replay import DEADLINE_MS

TOKEN = "of a service that lives for this proof"  # noqa: S105
WHO = "the proof"


@dataclass(frozen=True, slots=True)
class Service:
    """Replicas, their store with its URL, and the orders that an operator gives."""

    replicas: tuple[Replica, ...]
    store: PostgresServer
    database: str

    @property
    def urls(self) -> list[str]:
        """Of the replicas."""
        return [replica.url for replica in self.replicas]

    def order(self, word: str, **asked: object) -> dict[str, Any]:
        """Give an order about the rollout; return its status.

        Raises:
            ProcessError: no replica has taken it.
        """
        return dict(self._ask(f"/v1/admin/rollout/{word}", {"who": WHO, "why": "the proof goes on", **asked}))

    def kill(self, *, on: bool) -> None:
        """Give everybody the original, or stop doing so. Raises as `order` does."""
        self._ask("/v1/admin/kill", {"who": WHO, "why": "the proof goes on", "on": on})

    def status(self) -> dict[str, Any]:
        """What is deployed, and what is known of the last rollout. Raises as `order` does."""
        return dict(self._ask("/v1/admin/rollout", None))

    def history(self) -> list[dict[str, Any]]:
        """Every transition of every rollout. Raises as `order` does."""
        found: list[dict[str, Any]] = self._ask("/v1/admin/rollout/history", None)["transitions"]
        return found

    def _ask(self, path: str, body: Mapping[str, object] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        refused = []
        for url in self.urls:
            request = urllib.request.Request(url + path, data, headers)  # noqa: S310 -- our own
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 -- likewise
                    return json.loads(answer.read())
            except urllib.error.HTTPError as error:
                refused.append(f"{url}: {error.code} {error.read().decode()}")
            except OSError as error:
                refused.append(f"{url}: {error}")
        raise ProcessError(f"{path}: {'; '.join(refused)}")


@contextmanager
def running_service(folder: Path, registry: Path, *, replicas: int, **settings: object) -> Iterator[Service]:
    """Start all of it, logs in `folder`; it is gone at the end.

    Args:
        folder: for logs and pulled checkpoints.
        registry: where the checkpoints are.
        replicas: how many.
        settings: of the service, beyond what makes it one with rollouts.

    Raises:
        ProcessError: something does not start; the logs say why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with running_postgres() as store:
        url = store.database()
        common = {
            "rollouts": url,
            "registry": registry,
            "checkpoints": folder / "checkpoints",
            "admin_token": TOKEN,
            "exposure_key": TOKEN,
            "deadline_ms": DEADLINE_MS,
            "relevance": "none",
            "log_level": "warning",
            "engine_threads": 1,
            **settings,
        }
        fleet = tuple(Replica(f"replica-{number + 1}", folder, common) for number in range(replicas))
        try:
            for replica in fleet:
                replica.start()
            yield Service(fleet, store, url)
        finally:
            for replica in fleet:
                replica.kill()
