"""The files that start clusters: Ray and KubeRay take them, and work of each kind calls the machine of its kind."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary
from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer, get_nodes_for
from ray.autoscaler._private.util import prepare_config, validate_config

from train.gang import bundle
from train.recipe import load_recipe

REPOSITORY = Path(__file__).resolve().parents[2]
KUBERAY = REPOSITORY / "ops" / "kuberay"
LOCK = dict(line.split("==") for line in (REPOSITORY / "requirements.lock").read_text().splitlines() if "==" in line)


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def _launcher() -> dict[str, Any]:
    """cluster.yaml as Ray fills it out and checks it at the beginning of `ray up`."""
    config = prepare_config(_yaml(REPOSITORY / "cluster.yaml"))
    validate_config(config)
    return config


def _cluster_specs() -> dict[str, dict[str, Any]]:
    return {
        "raycluster.yaml": _yaml(KUBERAY / "raycluster.yaml")["spec"],
        "rayjob.yaml": _yaml(KUBERAY / "rayjob.yaml")["spec"]["rayClusterSpec"],
    }


def _kuberay(spec: dict[str, Any]) -> dict[str, Any]:
    """What Ray's autoscaler makes of a RayCluster resource."""
    resource = {"metadata": {"name": "sayso", "namespace": "default"}, "spec": spec}
    config: dict[str, Any] = _derive_autoscaling_config_from_ray_cr(resource)
    validate_config(config)
    return config


def _called(config: dict[str, Any], need: dict[str, Any], times: int, *, apart: bool = False) -> dict[str, int]:
    """The machines that Ray's autoscaler would start for so many workers, on a cluster of a head alone.

    `apart` where each must have a machine of its own.
    """
    head = config["head_node_type"]

    def score(resources: Any, demands: Any, kind: str) -> Any:
        return _default_utilization_scorer(
            resources, demands, kind, node_availability_summary=NodeAvailabilitySummary({})
        )

    kinds, most = config["available_node_types"], config["max_workers"]
    nodes, missing = get_nodes_for(kinds, {head: 1}, head, most, [need] * times, score, apart)
    assert not missing
    return dict(nodes)


CONFIGS = ["cluster.yaml", "raycluster.yaml", "rayjob.yaml"]


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The configuration of the autoscaler that each file leads to."""
    if request.param == "cluster.yaml":
        return _launcher()
    return _kuberay(_cluster_specs()[request.param])


def test_workers_call_the_machines_of_their_kind(config: dict[str, Any]) -> None:
    assert _called(config, {"CPU": 1.0}, 40) == {"cpu": 3}
    assert _called(config, {"CPU": 1.0, "GPU": 1.0}, 3) == {"gpu": 3}


def test_training_calls_as_many_machines_as_it_asks_for(config: dict[str, Any]) -> None:
    where = ["data.root=/data", "data.export=clips", "output.folder=/runs/one"]
    recipe = load_recipe("mil_nce_release_8gpu", [*where, "engine={nodes: 4, ranks: 1, device: cuda}"])
    assert bundle(recipe) == {"CPU": 1.0, "GPU": 1.0}
    assert _called(config, bundle(recipe), 4, apart=True) == {"gpu": 4}
    on_cpus = load_recipe("mil_nce_demo", [*where, "engine={nodes: 2, ranks: 4, device: cpu, cpus: 6}"])
    assert _called(config, bundle(on_cpus), 2, apart=True) == {"cpu": 2}


def test_nothing_but_drivers_runs_on_the_head(config: dict[str, Any]) -> None:
    kinds = config["available_node_types"]
    assert kinds[config["head_node_type"]]["resources"]["CPU"] == 0
    assert {kind: each["max_workers"] for kind, each in kinds.items() if each["max_workers"]} == {"cpu": 32, "gpu": 8}
    assert all(each["min_workers"] == 0 for each in kinds.values()), "an idle cluster costs its head only"


def test_the_launcher_starts_every_node_with_the_token() -> None:
    config = _launcher()
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        [start] = [command for command in commands if "ray start" in command]
        assert start.startswith("RAY_AUTH_MODE=token ")
    [head] = [command for command in config["head_start_ray_commands"] if "ray start" in command]
    assert "--dashboard-host=127.0.0.1" in head


def test_the_launcher_installs_the_versions_of_the_lock() -> None:
    config = _launcher()
    kinds = config["available_node_types"]
    images = [config["docker"]["image"], kinds["gpu"]["docker"]["worker_image"]]
    assert images == [f"rayproject/ray:{LOCK['ray']}-py311-{kind}" for kind in ("cpu", "gpu")]
    for wheels, commands in (("cpu", config["setup_commands"]), ("cu130", kinds["gpu"]["worker_setup_commands"])):
        [torch] = [command for command in commands if " torch==" in command]
        assert f"torch=={LOCK['torch']}" in torch
        assert torch.endswith(f"/whl/{wheels}")
        assert commands.index(torch) == 0
        assert any("requirement" in command for command in commands)


def test_machines_that_may_be_taken_away_are_no_head() -> None:
    kinds = _launcher()["available_node_types"]
    spot = {kind for kind, each in kinds.items() if "InstanceMarketOptions" in each["node_config"]}
    assert spot == {"cpu", "gpu"}


def test_ray_refuses_a_launcher_file_with_a_slip() -> None:
    slipped = _yaml(REPOSITORY / "cluster.yaml")
    slipped["available_node_types"]["cpu"]["max_worker"] = slipped["available_node_types"]["cpu"].pop("max_workers")
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(slipped))


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_kuberay_takes_the_files(name: str) -> None:
    schema = json.loads(Path(__file__).with_name("kuberay.schema.json").read_text())
    resource = _yaml(KUBERAY / name)
    jsonschema.validate(resource, schema)
    slipped = copy.deepcopy(resource)
    slipped["spec"]["enableInTreeAutoScaling"] = True
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(slipped, schema)


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_pods_have_the_token_and_the_versions_of_the_lock(name: str) -> None:
    spec = _cluster_specs()[name]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == LOCK["ray"]
    dockerfile = (KUBERAY / "Dockerfile").read_text()
    assert f"ARG RAY={LOCK['ray']}-py311-cpu" in dockerfile
    assert re.search(rf"^ARG TORCH=torch=={re.escape(LOCK['torch'])}$", dockerfile, re.MULTILINE)


def test_the_job_of_kubernetes_has_the_cluster_of_the_other_file() -> None:
    standing, passing = _cluster_specs().values()
    assert standing == passing
