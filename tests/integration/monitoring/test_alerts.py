"""The alerts of k8s/base/monitoring.yaml, by Prometheus's own promtool: each fires for what it is for, alone.

A story is what the service says minute by minute; the healthy one is the same without what goes wrong in it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
GROUPS = next(
    one["spec"]["groups"]
    for one in yaml.safe_load_all((ROOT / "k8s" / "base" / "monitoring.yaml").read_text(encoding="utf-8"))
    if one["kind"] == "PrometheusRule"
)
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
DAY = 24 * 60
LONG = 8 * 60
"""Minutes; the longest burn rate is over six hours."""
REQUESTS = "corewrite_requests_total"

if shutil.which("promtool") is None:
    pytest.skip("promtool is not installed (apt-get install prometheus)", allow_module_level=True)


def series(name: str, /, **labels: str) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{name}{{{inside}}}"


REWRITTEN = series(REQUESTS, outcome="rewritten", reason="none")
DEGRADED = series(REQUESTS, outcome="degraded", reason="deadline")
SHED = series(REQUESTS, outcome="shed", reason="none")
CANARY = "corewrite_canary_ratio"
DECISIONS = series("corewrite_rollout_decisions_total", result="none")
DROPPED = series("corewrite_nearline_total", result="dropped")
CYCLE = {"namespace": "corewrite", "job_name": "corewrite-cycle-29000000"}
JOB = series("kube_job_failed", **CYCLE, condition="true")
BEGUN = series("kube_job_status_start_time", **CYCLE)
RAY_CYCLE = {"namespace": "corewrite", "job_name": "corewrite-cycle"}
RAY_JOB = series(
    "kuberay_job_deployment_status", namespace="corewrite", name="corewrite-cycle", deployment_status="Failed"
)
SERVING = series("corewrite_inflight_requests", gate="rewrite")
WEEK_S = 7 * 86_400


def healthy(minutes: int) -> dict[str, str]:
    return {
        REWRITTEN: f"0+6000x{minutes}",
        DEGRADED: f"0+60x{minutes}",
        SHED: f"0+1x{minutes}",  # a sixth of what may be
        DECISIONS: f"0+6x{minutes}",
        DROPPED: f"0x{minutes}",
        JOB: f"0x{minutes}",
        BEGUN: f"0x{minutes}",  # seconds since 1970, which is when a story begins
        SERVING: f"3x{minutes}",
        CANARY: f"0x{minutes}",
        "corewrite_canary_loaded": f"1x{minutes}",
        "corewrite_rollout_store_up": f"1x{minutes}",
        "corewrite_killed": f"0x{minutes}",
        "corewrite_promoted_missing": f"0x{minutes}",
        "corewrite_nearline_backlog": f"10x{minutes}",
    }


@dataclass(frozen=True)
class Story:
    """What goes wrong, how long it is told, and which alerts there are at its end."""

    alerts: tuple[str, ...]
    changes: Mapping[str, str] = field(default_factory=dict)
    minutes: int = LONG


STORIES = {
    "healthy": Story(()),
    "shed fast": Story(
        ("CorewriteUnansweredFast", "CorewriteUnansweredSlow"), {SHED: f"0+1x{LONG - 200} 10000+300x200"}
    ),
    "shed slowly": Story(("CorewriteUnansweredSlow",), {SHED: f"0+50x{LONG}"}),
    "slow": Story(("CorewriteFallbacks",), {DEGRADED: f"0+1000x{LONG}"}),
    "a canary that moves": Story(
        (), {CANARY: f"0.01x{DAY - 1} 0.05x{DAY - 1} 0.25x{2 * DAY}"}, minutes=4 * DAY
    ),
    "a canary that does not": Story(
        ("CorewriteCanaryStuck",), {CANARY: f"0.05x{DAY - 10} 0.25x{3 * DAY + 10}"}, minutes=4 * DAY
    ),
    "a new replica amid a rollout": Story(
        (), {CANARY: f"0x{LONG - 60} 0.25x60", f'{CANARY}{{pod="new"}}': f"_x{LONG - 10} 0.25x10"}
    ),
    "not loaded": Story(
        ("CorewriteCanaryNotLoaded",),
        {CANARY: f"0x{LONG - 30} 0.01x30", "corewrite_canary_loaded": f"0x{LONG}"},
    ),
    "promoted and not loaded": Story(
        ("CorewritePromotedNotLoaded",), {"corewrite_promoted_missing": f"0x{LONG - 30} 1x30"}
    ),
    "nobody decides": Story(("CorewriteNobodyDecides",), {DECISIONS: f"0x{LONG}"}),
    "no controller": Story(("CorewriteNobodyDecides",), {DECISIONS: f"_x{LONG}"}),
    "store lost": Story(
        ("CorewriteStoreUnreachable",), {"corewrite_rollout_store_up": f"1x{LONG - 30} 0x30"}
    ),
    "killed": Story(("CorewriteKilled",), {"corewrite_killed": f"0x{LONG - 90} 1x90"}),
    "backlog": Story(
        ("CorewriteNearlineBacklog",), {"corewrite_nearline_backlog": f"900x{LONG}", DROPPED: f"0+10x{LONG}"}
    ),
    "refused": Story(("CorewriteGateRefused",), {JOB: f"0x{LONG - 30} 1x30"}),
    "refused, more than a week ago": Story((), {JOB: f"1x{LONG}", BEGUN: f"{-WEEK_S}x{LONG}"}),
    "a pod of it failed, and the next one was done": Story(
        (), {series("kube_job_status_failed", **CYCLE): f"1x{LONG}"}
    ),
    "refused on Ray": Story(("CorewriteGateRefused",), {RAY_JOB: f"_x{LONG - 30} 1x30"}),
    "nobody there": Story(("CorewriteNobodyServes",), {SERVING: f"3x{LONG - 10} _x10"}),
}


def promtool(folder: Path, *words: str, **files: Any) -> subprocess.CompletedProcess[str]:
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return subprocess.run(["promtool", *words], cwd=folder, capture_output=True, text=True, check=False)


def firing(story: Story) -> list[dict[str, Any]]:
    """What promtool is to find at the end: of each alert that it fires, or that it does not."""
    return [
        {
            "eval_time": f"{story.minutes}m",
            "alertname": name,
            "exp_alerts": [expected(name, story)] if name in story.alerts else [],
        }
        for name in ALERTS
    ]


def expected(name: str, story: Story) -> dict[str, Any]:
    rule = ALERTS[name]
    labels = dict(rule["labels"])
    if name == "CorewriteGateRefused":
        labels |= RAY_CYCLE if RAY_JOB in story.changes else CYCLE
    return {"exp_labels": labels, "exp_annotations": rule["annotations"]}


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    done = promtool(tmp_path, "check", "rules", "rules.yaml", rules={"groups": GROUPS})
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_story() -> None:
    assert {name for story in STORIES.values() for name in story.alerts} == set(ALERTS)


@pytest.mark.parametrize("name", STORIES)
def test_it_fires_for_what_it_is_for(name: str, tmp_path: Path) -> None:
    story = STORIES[name]
    told = {**healthy(story.minutes), **story.changes}
    test = {
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in told.items()],
        "alert_rule_test": firing(story),
    }
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    done = promtool(tmp_path, "test", "rules", "tests.yaml", rules={"groups": GROUPS}, tests=tests)
    assert done.returncode == 0, done.stdout + done.stderr
