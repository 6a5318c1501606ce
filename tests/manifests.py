"""The manifests under k8s/, rendered by kubectl, and ways through them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
API = "1.31"
OVERLAYS = sorted(path.name for path in (ROOT / "k8s" / "overlays").iterdir())
PRODUCTION = [name for name in OVERLAYS if name != "dev"]

Object = dict[str, Any]

if shutil.which("kubectl") is None:
    pytest.skip("kubectl is not installed", allow_module_level=True)


@cache
def rendered(overlay: str) -> tuple[Object, ...]:
    command = ["kubectl", "kustomize", str(ROOT / "k8s" / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""  # nothing deprecated
    return tuple(yaml.safe_load_all(done.stdout))


def of(overlay: str, *kinds: str) -> list[Object]:
    return [one for one in rendered(overlay) if one["kind"] in kinds]


def pods(overlay: str) -> Iterator[tuple[str, Object]]:
    for one in of(overlay, "Deployment", "CronJob"):
        spec = one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one["spec"]
        yield one["metadata"]["name"], spec["template"]["spec"]
    for name, template in ray_pods(overlay):
        yield name, template["spec"]


def ray_pods(overlay: str) -> Iterator[tuple[str, Object]]:
    """The templates of the cluster of a RayJob."""
    for one in of(overlay, "RayJob"):
        cluster = one["spec"]["rayClusterSpec"]
        yield "head", cluster["headGroupSpec"]["template"]
        for group in cluster["workerGroupSpecs"]:
            yield group["groupName"], group["template"]


def containers(overlay: str) -> Iterator[tuple[str, Object]]:
    for name, pod in pods(overlay):
        for container in pod["containers"] + pod.get("initContainers", []):
            yield name, container


def settings(overlay: str) -> dict[str, str]:
    """Those that are no secrets."""
    (found,) = [one["data"] for one in of(overlay, "ConfigMap") if "REWRITE_REGISTRY" in one["data"]]
    return found
