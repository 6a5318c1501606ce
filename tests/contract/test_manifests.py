"""The manifests under k8s/ keep the rules of a cautious cluster; test_manifest_schemas.py has the schemas."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from manifests import API, OVERLAYS, PRODUCTION, ROOT, containers, of, pods, ray_pods, rendered, settings
from s3_server import s3_server
from starlette.testclient import TestClient

from app.cli import parse
from app.main import create_app
from app.registry.checkpoint import DEFAULT_CHECKPOINT
from app.registry.place import Place
from app.registry.store import Registry
from app.settings import Settings
from app.telemetry import METRICS


def names(value: Any, *references: str) -> Iterator[str]:
    """The names at the end of references of some kinds, wherever they are."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in references:
                yield inner.get("name") or inner["secretName"]
            yield from names(inner, *references)
    if isinstance(value, list):
        for inner in value:
            yield from names(inner, *references)


@pytest.mark.parametrize("overlay", PRODUCTION)
def test_the_key_that_signs_is_where_the_cycle_is_and_nowhere_else(overlay: str) -> None:
    holders = {name for name, pod in pods(overlay) if "corewrite-signing" in json.dumps(pod)}
    assert holders == ({"corewrite-cycle", "head"} if of(overlay, "RayJob") else {"corewrite-cycle"})
    (cycle,) = [pod for name, pod in pods(overlay) if name == "corewrite-cycle"]
    (container,) = cycle["containers"]
    key = parse(container["args"]).sign_with
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "signing"]
    assert (str(key.parent), mount["readOnly"]) == (mount["mountPath"], True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_replicas_are_as_many_as_the_requests_in_flight_ask_for_and_leave_one_by_one(overlay: str) -> None:
    (scaler,) = of(overlay, "HorizontalPodAutoscaler")
    deployments = {one["metadata"]["name"]: one["spec"] for one in of(overlay, "Deployment")}
    assert "replicas" not in deployments[scaler["spec"]["scaleTargetRef"]["name"]]  # it would be set back
    (gauge,) = [spec for spec in METRICS if spec.name == "corewrite_inflight_requests"]
    asked = [one["pods"]["metric"] for one in scaler["spec"]["metrics"]]
    assert {one["name"] for one in asked} == {gauge.name}
    assert [one["selector"]["matchLabels"] for one in asked] == [{"gate": "rewrite"}, {"gate": "signals"}]
    assert {"rewrite", "signals"} <= set(gauge.labels["gate"])
    budgets = {one["metadata"]["name"]: one["spec"] for one in of(overlay, "PodDisruptionBudget")}
    for name in ("corewrite", "corewrite-control"):
        assert budgets[name]["maxUnavailable"] == 1
        spread = deployments[name]["template"]["spec"]["topologySpreadConstraints"]
        labels = deployments[name]["template"]["metadata"]["labels"]
        assert "kubernetes.io/hostname" in {one["topologyKey"] for one in spread}
        assert all(one["labelSelector"]["matchLabels"].items() <= labels.items() for one in spread)
    assert deployments["corewrite-control"]["replicas"] > 1  # of which one has the lease, in the store


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_alerts_that_were_asked_for_are_there(overlay: str) -> None:
    (rules,) = of(overlay, "PrometheusRule")
    alerts = {rule.get("alert") for group in rules["spec"]["groups"] for rule in group["rules"]}
    assert alerts >= {
        *("CorewriteUnansweredFast", "CorewriteUnansweredSlow", "CorewriteFallbacks", "CorewriteCanaryStuck"),
        *("CorewriteGateRefused", "CorewriteNearlineBacklog"),
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_referred_to_and_never_written_out(overlay: str) -> None:
    secret = {"REWRITE_ROLLOUTS", "REWRITE_EXPOSURE_KEY", "REWRITE_ADMIN_TOKEN", "REWRITE_LOG_HASH_KEY"}
    secret |= {"REWRITE_REDIS_URL", "REWRITE_OPENAI_API_KEY"}
    assert not secret & set(settings(overlay))
    for name, container in containers(overlay):
        for one in container.get("env", ()):
            assert one["name"] not in secret or "secretKeyRef" in one["valueFrom"], name


def test_traces_may_leave_for_their_collector_and_for_nowhere_else() -> None:
    url = urlsplit(settings("large")["REWRITE_TRACES"])
    (policy,) = [one for one in of("large", "NetworkPolicy") if one["metadata"]["name"] == "corewrite"]
    (rule,) = [
        one for one in policy["spec"]["egress"] if {"protocol": "TCP", "port": url.port} in one["ports"]
    ]
    assert url.hostname is not None
    names = rule["to"][0]["namespaceSelector"]["matchLabels"].values()
    assert list(names) == [url.hostname.split(".")[1]]


def test_the_bucket_of_dev_keeps_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the server that its image has, made as it is made there, with the variables that its pods have."""
    (bucket,) = [pod for name, pod in pods("dev") if name == "bucket"]
    (container,) = bucket["containers"]
    (program, option, script) = container["lifecycle"]["postStart"]["exec"]["command"]
    told = settings("dev")
    assert container["image"].split(":")[1] == version("moto")
    with s3_server() as endpoint:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            monkeypatch.setenv(name, told[name])
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert (program, option, told["AWS_ENDPOINT_URL"]) == ("python", "-c", "http://bucket:5000")
        made = script.replace("http://127.0.0.1:5000", endpoint)
        subprocess.run([sys.executable, "-c", made], check=True)
        registry = Registry(Place.at(told["REWRITE_REGISTRY"]))
        digest = registry.push(DEFAULT_CHECKPOINT)
        now = datetime.now(UTC)
        registry.aliases.move("stable", digest, seen=None, who="ann", why="the first", when=now)
        assert registry.resolve("stable") == digest


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


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_are_those_that_there_are(overlay: str) -> None:
    documented = set(re.findall(r"`(REWRITE_\w+)`", (ROOT / "docs" / "settings.md").read_text()))
    said = {name for name in settings(overlay) if not name.startswith("AWS_")}
    for _, container in containers(overlay):
        said |= {one["name"] for one in container.get("env", ()) if one["name"].startswith("REWRITE_")}
    assert said <= documented


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_what_they_are_for(overlay: str) -> None:
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in of(overlay, "Deployment")]
    labels += [template["metadata"]["labels"] for _, template in ray_pods(overlay)]
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


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_a_replica_of_production_starts_from_the_image_alone(
    overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose own checkpoint nobody has signed; what is secret or the image's is left out."""
    key = Ed25519PrivateKey.generate().public_key()
    (tmp_path / "signers.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (serve,) = [pod for name, pod in pods(overlay) if name == "corewrite"]
    said = {one["name"]: one["value"] for one in serve["containers"][0]["env"] if "value" in one}
    said |= settings(overlay) | {"REWRITE_SIGNERS": str(tmp_path / "signers.pem")}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with TestClient(create_app(Settings())) as client:
        assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everybody_gets_the_original_while_a_config_map_is_there(overlay: str) -> None:
    """It is `corewrite-killed`, as the handbook makes it; no replica waits for it."""
    (serve,) = [pod for name, pod in pods(overlay) if name == "corewrite"]
    (volume,) = [
        one for one in serve["volumes"] if one.get("configMap", {}).get("name") == "corewrite-killed"
    ]
    assert volume["configMap"]["optional"] is True
    mounts = {one["name"]: one["mountPath"] for one in serve["containers"][0]["volumeMounts"]}
    file = Path(settings(overlay)["REWRITE_KILL_FILE"])
    assert str(file.parent) == mounts[volume["name"]]
    handbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert f"create configmap corewrite-killed --from-literal={file.name}=" in handbook


def test_the_identity_of_a_cloud_may_be_asked_for_where_an_overlay_says_so(tmp_path: Path) -> None:
    k8s = Path(os.path.relpath(ROOT / "k8s", tmp_path))
    parts = {"resources": [str(k8s / "overlays" / "cpu")], "components": [str(k8s / "identity")]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(parts), encoding="utf-8")
    done = subprocess.run(["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, check=True)
    (policy,) = [one for one in yaml.safe_load_all(done.stdout) if one["kind"] == "NetworkPolicy"]
    kubernetes_validate.validate(policy, API, strict=True)
    before, now = (
        {
            (to["ipBlock"]["cidr"], port["port"])
            for rule in egress
            for to in rule.get("to", ())
            if "ipBlock" in to
            for port in rule["ports"]
        }
        for egress in (of("cpu", "NetworkPolicy")[0]["spec"]["egress"], policy["spec"]["egress"])
    )
    assert now - before == {
        ("169.254.169.254/32", 80),
        ("169.254.170.23/32", 80),
        ("169.254.169.252/32", 988),
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_serving_is_drained_before_it_is_stopped(overlay: str) -> None:
    (serve,) = [pod for name, pod in pods(overlay) if name == "corewrite"]
    (container,) = serve["containers"]
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert serve["terminationGracePeriodSeconds"] >= sleep + 10 + 5  # REWRITE_DRAIN_TIMEOUT_S, and to write
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
