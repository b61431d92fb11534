"""The manifests: servers that are replaced one by one; an agent that has time for its goodbye."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tasklogs.agent.settings import Settings
from tasklogs_server.settings import ServerSettings
from tasklogs_server.transport.registration import LIVENESS
from tests.deploy.known import DEPLOY, ROOT, documents, variables_of
from tests.system.hostile.memory import ceiling

OLDEST = "1.30"
"""The first version with preStop's `sleep`."""
KUBERNETES = DEPLOY / "kubernetes"
# Those of the overlays are patches, and no complete documents.
FILES = sorted([*KUBERNETES.glob("*.yaml"), *KUBERNETES.glob("base/*.yaml")])
DRAIN_SECONDS = ServerSettings.model_fields["drain_timeout"].default.total_seconds()


def objects(file: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (one["kind"], one["metadata"]["name"]): one
        for one in documents(KUBERNETES / f"{file}.yaml")
    }


def pod_specs() -> list[dict[str, Any]]:
    deployment = objects("base/server")["Deployment", "tasklogs"]
    workspace = objects("workspace.example")["Pod", "demo-workspace"]
    return [deployment["spec"]["template"]["spec"], workspace["spec"]]


def kustomized(directory: str | Path) -> dict[tuple[str, str], dict[str, Any]]:
    built = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / directory)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(built.stdout)}


def base_container() -> dict[str, Any]:
    [container] = pod_specs()[0]["containers"]
    assert isinstance(container, dict)
    return container


def variables(container: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


@pytest.fixture
def pod() -> dict[str, Any]:
    return pod_specs()[0]


@pytest.fixture
def server() -> dict[str, Any]:
    return base_container()


@pytest.fixture
def agent() -> dict[str, Any]:
    [found] = [one for one in pod_specs()[1]["containers"] if one["name"] == "agent"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_document_is_valid_in_all_versions_that_the_docs_name(file: Path) -> None:
    for one in documents(file):
        if one["kind"] == "Kustomization":
            continue
        for version in (OLDEST, kubernetes_validate.latest_version()):
            kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("directory", ["base", "overlays/nats", "overlays/single"])
def test_kustomize_builds_each_directory(directory: str) -> None:
    built = kustomized(directory)

    for one in built.values():
        kubernetes_validate.validate(one, OLDEST, strict=True)
    assert set(built) == set(objects("base/server"))
    deployment = built["Deployment", "tasklogs"]["spec"]
    [container] = deployment["template"]["spec"]["containers"]
    assert deployment["replicas"] == (1 if directory.endswith("single") else 2)
    assert ("TASKLOGS_BUS" in variables(container)) == directory.endswith("nats")
    assert set(variables(container)) >= set(variables(base_container()))


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_the_overlay_of_the_docs_sets_image_namespace_and_number(tmp_path: Path) -> None:
    section = (ROOT / "docs/operations.md").read_text().partition("### On Kubernetes")[2]
    overlay = section.partition("```yaml")[2].partition("```")[0]
    base = "../tasklogs/deploy/kubernetes/base"
    assert base in overlay
    directory = tmp_path / "overlay"
    directory.mkdir()
    # kustomize takes relative paths only.
    relative = os.path.relpath((KUBERNETES / "base").resolve(), directory.resolve())
    (directory / "kustomization.yaml").write_text(overlay.replace(base, relative))

    built = kustomized(directory)

    deployment = built["Deployment", "tasklogs"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("registry.example.org/tasklogs:")
    assert deployment["spec"]["replicas"] == 3
    assert {one["metadata"]["namespace"] for one in built.values()} == {"tasklogs"}


def test_servers_are_replaced_one_by_one_by_servers_that_are_ready() -> None:
    deployment = objects("base/server")["Deployment", "tasklogs"]["spec"]
    startup = base_container()["startupProbe"]

    assert deployment["replicas"] >= 2
    assert deployment["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    # A migration may take as long as the probe allows.
    assert deployment["progressDeadlineSeconds"] > (
        startup["periodSeconds"] * startup["failureThreshold"] + deployment["minReadySeconds"]
    )


def test_no_caller_can_make_a_server_exceed_its_memory_limit(server: dict[str, Any]) -> None:
    numbers = {
        name.removeprefix("TASKLOGS_").lower(): int(value)
        for name, value in variables(server).items()
        if isinstance(value, str) and value.isdecimal()
    }
    limit = server["resources"]["limits"]["memory"]
    assert limit.endswith("Gi")

    most = ceiling(ServerSettings.model_validate(numbers), sending_agents=200, streams=4000)
    assert most <= int(limit.removesuffix("Gi")) * 1024**3


def test_servers_spread_over_machines_and_zones(pod: dict[str, Any]) -> None:
    labels = objects("base/server")["Deployment", "tasklogs"]["spec"]["template"]["metadata"]
    constraints = pod["topologySpreadConstraints"]

    assert [one["topologyKey"].rpartition("/")[2] for one in constraints] == ["hostname", "zone"]
    for one in constraints:
        assert one["labelSelector"]["matchLabels"] == labels["labels"]
        assert one["matchLabelKeys"] == ["pod-template-hash"]


def test_clients_spread_again_after_a_rolling_update(server: dict[str, Any]) -> None:
    assert float(variables(server)["TASKLOGS_CONNECTION_AGE"]) > 0


def test_one_service_balances_connections_and_one_names_all_servers() -> None:
    found = objects("base/server")
    one, every = (found["Service", name]["spec"] for name in ("tasklogs", "tasklogs-headless"))

    assert "clusterIP" not in one
    assert every["clusterIP"] == "None"
    assert (one["selector"], one["ports"]) == (every["selector"], every["ports"])


def test_selectors_match_their_pods() -> None:
    found = objects("base/server")
    deployment = found["Deployment", "tasklogs"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]

    assert deployment["selector"]["matchLabels"] == labels
    assert found["Service", "tasklogs"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget", "tasklogs"]["spec"]["selector"]["matchLabels"] == labels
    assert found["NetworkPolicy", "tasklogs"]["spec"]["podSelector"]["matchLabels"] == labels


def test_a_node_can_be_drained() -> None:
    budget = objects("base/server")["PodDisruptionBudget", "tasklogs"]["spec"]

    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_probes_use_grpc_on_the_health_port(server: dict[str, Any]) -> None:
    port = int(variables(server)["TASKLOGS_HEALTH_LISTEN"].rpartition(":")[2])

    assert server["livenessProbe"]["grpc"] == {"port": port, "service": LIVENESS}
    assert server["startupProbe"]["grpc"] == {"port": port, "service": LIVENESS}
    assert server["readinessProbe"]["grpc"] == {"port": port}


def test_ports_are_those_in_the_settings(server: dict[str, Any], pod: Any) -> None:
    listening = {
        value.rpartition(":")[2]
        for name, value in variables(server).items()
        if name.endswith("_LISTEN")
    }
    names = {one["name"] for one in server["ports"]}

    assert {str(one["containerPort"]) for one in server["ports"]} == listening
    assert objects("base/server")["Service", "tasklogs"]["spec"]["ports"][0]["targetPort"] in names
    annotations = objects("base/server")["Deployment", "tasklogs"]["spec"]["template"]["metadata"][
        "annotations"
    ]
    assert annotations["prometheus.io/port"] in listening


@pytest.mark.parametrize("number", [0, 1], ids=["server", "agent"])
def test_every_variable_is_a_setting(number: int) -> None:
    command = ("serve", "agent")[number]
    [container] = [one for one in pod_specs()[number]["containers"] if one.get("args") == [command]]

    assert set(variables(container)) <= variables_of(command)


def test_secret_values_come_from_secrets_in_the_example(server: dict[str, Any]) -> None:
    examples = objects("secret.example")
    for value in variables(server).values():
        if isinstance(value, dict):
            kind, field = (
                ("Secret", "stringData") if "secretKeyRef" in value else ("ConfigMap", "data")
            )
            [reference] = value.values()
            assert reference["key"] in examples[kind, reference["name"]][field]
    assert isinstance(variables(server)["TASKLOGS_DATABASE_URL"], dict)


def test_mounts_are_volumes_and_files_are_in_mounts() -> None:
    for spec in pod_specs():
        volumes = {one["name"] for one in spec["volumes"]}
        for container in spec["containers"]:
            mounts = container.get("volumeMounts", [])
            assert {one["name"] for one in mounts} <= volumes
            for name, value in variables(container).items() if "env" in container else ():
                if isinstance(value, str) and value.startswith("/"):
                    assert any(value.startswith(one["mountPath"] + "/") for one in mounts), name


def test_no_container_runs_as_root_or_can_become_root() -> None:
    for spec in pod_specs():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            if container["image"] == "tasklogs":
                assert context["readOnlyRootFilesystem"] is True
                assert container["resources"]["limits"]["memory"]


def test_the_server_has_more_time_to_end_than_its_drain_takes(
    pod: dict[str, Any], server: dict[str, Any]
) -> None:
    serves_on = server["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert pod["terminationGracePeriodSeconds"] > serves_on + DRAIN_SECONDS + 5


def test_the_server_serves_until_nodes_know_that_it_stops(server: dict[str, Any]) -> None:
    assert server["lifecycle"]["preStop"]["sleep"]["seconds"] >= 5


def test_the_task_app_outlives_the_agents_last_sync(agent: dict[str, Any]) -> None:
    spec = pod_specs()[1]
    [task_app] = [one for one in spec["containers"] if one["name"] == "task-app"]
    waits = task_app["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert waits >= Settings().goodbye_timeout_seconds
    assert spec["terminationGracePeriodSeconds"] > waits
    # SIGTERM makes an agent flush, so nothing may intercept it.
    assert "lifecycle" not in agent
    assert "command" not in agent
    assert not spec.get("initContainers")
    port = task_app["ports"][0]["containerPort"]
    assert variables(agent)["TASKLOGS_AGENTAPI_URL"] == f"http://localhost:{port}"
