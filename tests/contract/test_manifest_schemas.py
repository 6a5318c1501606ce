"""The manifests against the schemas of the API and of the operators.

What is the Prometheus operator's is held against the operator's own types, as npm has them. KubeRay publishes
its schemas in no registry: of a RayJob the pods are held against the API's, the fields around them to a list.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import kubernetes_validate
import pytest
from manifests import OVERLAYS, ROOT, Object, of, ray_pods, rendered

from app.cli import parse

API = "1.31"
MONITORING, RAY = "monitoring.coreos.com/v1", "ray.io/v1"
CRDS = ROOT / ".crds"
VALIDATE = """
import * as types from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
let text = ""; for await (const chunk of process.stdin) text += chunk;
const wrong = JSON.parse(text).map(one => {
  try { new types[one.kind](one).validate(); return null } catch (error) { return error.message }
});
process.stdout.write(JSON.stringify(wrong));
"""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_knows_every_field(overlay: str) -> None:
    for one in rendered(overlay):
        if one["apiVersion"] not in {MONITORING, RAY}:
            kubernetes_validate.validate(one, API, strict=True)
    for name, template in ray_pods(overlay):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": template}
        kubernetes_validate.validate(pod, API, strict=True)


def complaints(objects: list[Object]) -> list[str | None]:
    """What the Prometheus operator's types have to say about each."""
    if shutil.which("node") is None or not (CRDS / "node_modules").is_dir():
        pytest.skip("the operators' schemas are not here (npm, and make .crds/.done)")
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", VALIDATE],
        cwd=CRDS,
        input=json.dumps(objects),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[str | None] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_prometheus_operator_knows_its_own(overlay: str) -> None:
    own = [one for one in rendered(overlay) if one["apiVersion"] == MONITORING]
    assert {one["kind"] for one in own} == {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assert complaints(own) == [None] * len(own)


def test_the_prometheus_operators_types_find_what_is_wrong() -> None:
    (monitor,) = of("cpu", "ServiceMonitor")
    (rule,) = of("cpu", "PrometheusRule")
    broken = [
        {**monitor, "spec": {**monitor["spec"], "endpoints": [{"port": "http", "interval": "15 seconds"}]}},
        {**monitor, "spec": {"selector": {}}},
        {**rule, "spec": {"groups": [{"name": "a", "rules": [{"alert": "A", "for": 5, "expr": "1"}]}]}},
    ]
    assert all(complaints(broken))


def test_a_ray_job_has_the_fields_that_kuberay_has() -> None:
    """By hand, from KubeRay's reference of its API (ray.io/v1, 1.3)."""
    known = {
        "RayJobSpec": "activeDeadlineSeconds backoffLimit rayClusterSpec submitterPodTemplate metadata "
        "clusterSelector submitterConfig managedBy deletionStrategy entrypoint runtimeEnvYAML jobId "
        "submissionMode entrypointResources entrypointNumCpus entrypointNumGpus ttlSecondsAfterFinished "
        "shutdownAfterJobFinishes suspend",
        "RayClusterSpec": "suspend managedBy autoscalerOptions headServiceAnnotations headGroupSpec "
        "enableInTreeAutoscaling gcsFaultToleranceOptions rayVersion workerGroupSpecs",
        "HeadGroupSpec": "template headService enableIngress rayStartParams serviceType",
        "WorkerGroupSpec": "suspend groupName replicas minReplicas maxReplicas idleTimeoutSeconds "
        "rayStartParams template scaleStrategy numOfHosts",
    }
    (job,) = of("large", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    parts = [("RayJobSpec", job["spec"]), ("RayClusterSpec", cluster)]
    parts += [("HeadGroupSpec", cluster["headGroupSpec"])]
    parts += [("WorkerGroupSpec", group) for group in cluster["workerGroupSpecs"]]
    for name, part in parts:
        assert set(part) <= set(known[name].split()), name
    for _, part in parts:
        assert all(isinstance(value, str) for value in part.get("rayStartParams", {}).values())
    locked = re.search(r"^ray==(.*)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked
    assert cluster["rayVersion"] == locked[1]


def test_the_large_cycle_is_a_command_that_there_is() -> None:
    """As many workers as the cluster has, each with a GPU; the CronJob does not do the same week."""
    (job,) = of("large", "RayJob")
    program, *words = job["spec"]["entrypoint"].split()
    told = parse(words)
    assert (program, told.where, told.ray_address) == ("corewrite", "ray", "auto")
    groups = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert told.workers == sum(group["replicas"] for group in groups)
    for name, template in ray_pods("large"):
        (container,) = template["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1", name
    (cron,) = of("large", "CronJob")
    assert cron["spec"]["suspend"] is True
    (container,) = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert parse(container["args"]).window == told.window
