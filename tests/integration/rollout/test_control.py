"""`corewrite control`: a process of its own that decides for replicas that may not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

from ports import free_port
from small_checkpoint import write_checkpoint
from waiting import wait_until

from app.registry.place import Place
from app.registry.store import Registry
from app.rollout.database import Database
from app.rollout.members import Members
from app.rollout.plan import read_plan
from app.rollout.schema import upgrade
from app.rollout.store import RolloutStore

PLAN = """
prepare_s = 0.0
[[steps]]
ratio = 0.5
[[steps]]
ratio = 1.0
[[guardrails]]
metric = "strict"
better = "higher"
margin = 0.1
"""


def test_it_begins_a_rollout_whose_replicas_have_loaded_it_and_ends_when_it_is_told(
    url: str, tmp_path: Path
) -> None:
    registry = Registry(Place.at(str(tmp_path / "registry")))
    digest = registry.push(write_checkpoint(tmp_path / "new"))
    database = Database(url)
    upgrade(database)
    store, port = RolloutStore(database), free_port()
    Members(database).beat("replica", digest, database.now())
    store.start("autumn", digest, read_plan(PLAN), who="ann", why="x", at=datetime.now(UTC))
    settings = {"ROLLOUTS": url, "REGISTRY": tmp_path / "registry", "ROLLOUT_DECIDE_S": 0.1, "PORT": port}
    environment = {**os.environ, **{f"REWRITE_{name}": str(value) for name, value in settings.items()}}
    process = subprocess.Popen([sys.executable, "-m", "app.cli", "control"], env=environment)

    def told() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError:
            return ""

    def begun() -> bool:
        latest = store.deployment().latest
        return latest is not None and latest.last.state == "running"

    try:
        wait_until(begun)
        wait_until(lambda: 'corewrite_rollout_decisions_total{result="moved"} 1.0' in told())
        # Gauges of what serves would be zeros here, and alerts take the least and the most of all pods.
        told_of = set(re.findall(r"^# TYPE (corewrite_\w+)", told(), re.MULTILINE))
        assert told_of == {"corewrite_rollout_decisions_total", "corewrite_rollout_decisions_created"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        database.close()
