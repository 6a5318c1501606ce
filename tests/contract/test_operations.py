"""The operations handbook says what to do about each alert, and names only what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

from app.cli import parse
from app.telemetry import METRICS

ROOT = Path(__file__).parents[2]
HANDBOOK = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
OBJECTS = list(yaml.safe_load_all((ROOT / "k8s" / "base" / "monitoring.yaml").read_text(encoding="utf-8")))
RULES = [rule for one in OBJECTS for group in one["spec"].get("groups", ()) for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}


def test_each_alert_has_its_paragraph_and_each_paragraph_its_alert() -> None:
    told = dict(re.findall(r"^### (\w+)\n\n\*(\w+)\.\*", HANDBOOK, re.MULTILINE))
    assert told == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}
    assert all(rule["annotations"].keys() == {"summary", "action"} for rule in ALERTS.values())


def test_what_is_asked_is_a_metric_that_there_is() -> None:
    known = {spec.name for spec in METRICS}
    for rule in RULES:
        assert set(re.findall(r"\bcorewrite_\w+", rule["expr"])) <= known, rule
    assert set(re.findall(r"`(corewrite_\w+)", HANDBOOK)) <= known
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    for rule in ALERTS.values():
        assert set(re.findall(r"corewrite:[\w:]+", rule["expr"])) <= recorded


def test_labels_are_those_that_the_metrics_have() -> None:
    labels = {spec.name: set(spec.labels) for spec in METRICS}
    for rule in RULES:
        for name, inside in re.findall(r"\b(corewrite_\w+)\{([^}]*)\}", rule["expr"]):
            assert set(re.findall(r"(\w+)[!=~]+\"", inside)) <= labels[name]


def test_commands_are_commands() -> None:
    commands = re.findall(r"corewrite (rollout [\w -]+?)(?: --why|`)", HANDBOOK)
    assert "rollout kill" in commands
    for words in set(commands):
        parse([*words.split(), *([] if words.split()[1] in {"status", "history"} else ["--why", "x"])])


def test_a_new_cluster_gets_its_first_checkpoint_by_commands_that_there_are() -> None:
    lines = re.findall(r"^corewrite (checkpoints .*?)(?: {2,}#.*)?$", HANDBOOK, re.MULTILINE)
    said = [parse(shlex.split(line)) for line in lines]
    assert [one.alias for one in said[1:]] == ["stable", "last_good"]
    assert said[0].sign_with == Path("signing.pem")


def test_settings_are_settings() -> None:
    documented = set(
        re.findall(r"`(REWRITE_\w+)`", (ROOT / "docs" / "settings.md").read_text(encoding="utf-8"))
    )
    assert set(re.findall(r"REWRITE_\w+", HANDBOOK)) <= documented
