"""The manifests under k8s/, rendered by kubectl: the API's schemas, and the rules of a cautious cluster."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(path.name for path in (ROOT / "k8s" / "overlays").iterdir())
PRODUCTION = [name for name in OVERLAYS if name != "dev"]
API = "1.31"
OPERATORS = "monitoring.coreos.com/"
"""What is no part of Kubernetes has schemas of its own."""

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


def containers(overlay: str) -> Iterator[tuple[str, Object]]:
    for name, pod in pods(overlay):
        for container in pod["containers"] + pod.get("initContainers", []):
            yield name, container


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_knows_every_field(overlay: str) -> None:
    for one in rendered(overlay):
        if not one["apiVersion"].startswith(OPERATORS):
            kubernetes_validate.validate(one, API, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_privileged_or_writes_where_it_should_not(overlay: str) -> None:
    for name, pod in pods(overlay):
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume], name
    for name, container in containers(overlay):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_have_versions_and_containers_limits(overlay: str) -> None:
    for name, container in containers(overlay):
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+(\.\d+)?", container["image"]), name
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][kind]), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_referred_to_is_there_or_named_as_yours(overlay: str) -> None:
    made = {(one["kind"], one["metadata"]["name"]) for one in rendered(overlay)}
    yours = (ROOT / "k8s" / "overlays" / overlay / "kustomization.yaml").read_text()
    yours += (ROOT / "k8s" / "overlays" / "cpu" / "kustomization.yaml").read_text()
    for name, pod in pods(overlay):
        wanted = {
            ("ConfigMap", found) for found in names(pod, "configMap", "configMapRef", "configMapKeyRef")
        }
        wanted |= {("Secret", found) for found in names(pod, "secret", "secretRef", "secretKeyRef")}
        wanted |= {("ServiceAccount", pod.get("serviceAccountName", "default"))}
        for kind, found in wanted - made - {("ServiceAccount", "default")}:
            assert f"`{found}`" in yours, (name, kind, found)


def names(value: Any, *references: str) -> Iterator[str]:
    """The names at the end of references of some kinds, wherever they are."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in references:
                yield inner["name"]
            yield from names(inner, *references)
    if isinstance(value, list):
        for inner in value:
            yield from names(inner, *references)


def settings(overlay: str) -> dict[str, str]:
    """Those that are no secrets."""
    (found,) = [one["data"] for one in of(overlay, "ConfigMap") if "REWRITE_REGISTRY" in one["data"]]
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_are_those_that_there_are(overlay: str) -> None:
    documented = set(re.findall(r"`(REWRITE_\w+)`", (ROOT / "docs" / "settings.md").read_text()))
    said = set(settings(overlay))
    for _, container in containers(overlay):
        said |= {one["name"] for one in container.get("env", ()) if one["name"].startswith("REWRITE_")}
    assert said <= documented


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_what_they_are_for(overlay: str) -> None:
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in of(overlay, "Deployment")]
    for one in of(overlay, "Service", "PodDisruptionBudget", "PodMonitor", "NetworkPolicy"):
        spec = one["spec"]
        asked = spec.get("selector", spec.get("podSelector"))
        asked = asked.get("matchLabels", asked)
        assert [found for found in labels if asked.items() <= found.items()], one["metadata"]["name"]
    (monitor,) = of(overlay, "ServiceMonitor")
    services = [one["metadata"]["labels"] for one in of(overlay, "Service") if "labels" in one["metadata"]]
    assert [one for one in services if monitor["spec"]["selector"]["matchLabels"].items() <= one.items()]


@pytest.mark.parametrize("overlay", PRODUCTION)
def test_production_takes_signed_checkpoints_alone_and_makes_no_secrets(overlay: str) -> None:
    assert not of(overlay, "Secret")
    signers = Path(settings(overlay)["REWRITE_SIGNERS"])
    for name, container in containers(overlay):
        assert str(signers.parent) in [mount["mountPath"] for mount in container["volumeMounts"]], name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_serving_is_drained_before_it_is_stopped(overlay: str) -> None:
    (serve,) = [pod for name, pod in pods(overlay) if name == "corewrite"]
    (container,) = serve["containers"]
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert serve["terminationGracePeriodSeconds"] >= sleep + 10 + 5  # REWRITE_DRAIN_TIMEOUT_S, and to write
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
