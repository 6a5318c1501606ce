"""The manifests against the schemas of the API and of the operators.

What is the Prometheus operator's is held against the operator's own types, as npm has them. KubeRay publishes
its schemas in no registry: of a RayJob the pods are held against the API's, the fields around them against
`kuberay.yaml`, which has them from KubeRay's own definition.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator
from manifests import API, OVERLAYS, ROOT, Object, of, ray_pods, rendered

from app.cli import parse

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


def misfits(spec: Object) -> list[str]:
    """What KubeRay's schema has to say about the `spec` of a RayJob."""
    schema = yaml.safe_load((Path(__file__).parent / "kuberay.yaml").read_text())
    return [f"{one.json_path}: {one.message}" for one in Draft202012Validator(schema).iter_errors(spec)]


def test_kuberay_knows_its_own() -> None:
    (job,) = of("large", "RayJob")
    assert misfits(job["spec"]) == []
    locked = re.search(r"^ray==(.*)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == locked[1]


def test_kuberays_schema_finds_what_is_wrong() -> None:
    (job,) = of("large", "RayJob")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    few = {name: value for name, value in group.items() if name != "maxReplicas"}
    for broken, where in [
        ({**spec, "deletionStrategy": {}}, "deletionStrategy"),  # of later releases
        ({**spec, "backoffLimit": "0"}, "backoffLimit"),
        ({**spec, "rayClusterSpec": {**cluster, "workerGroupSpecs": [few]}}, "maxReplicas"),
        ({**spec, "rayClusterSpec": {**cluster, "workerGroupSpecs": [{**group, "gpus": 1}]}}, "gpus"),
        (
            {**spec, "rayClusterSpec": {**cluster, "headGroupSpec": {"rayStartParams": {"num-cpus": 0}}}},
            "num-cpus",
        ),
    ]:
        assert any(where in one for one in misfits(broken)), where


def test_what_kuberays_operator_refuses_is_not_asked_for() -> None:
    """A job that may be suspended gives its cluster up; groups that nothing scales have bounds."""
    (job,) = of("large", "RayJob")
    assert (job["spec"]["suspend"], job["spec"]["shutdownAfterJobFinishes"]) == (True, True)
    for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


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
