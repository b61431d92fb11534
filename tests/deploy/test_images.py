"""The Dockerfile, the Compose file and the locks."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.known import DEPLOY, ROOT, documents, help_of, variables_in, variables_of

DOCKERFILE = DEPLOY / "Dockerfile"
# [REGISTRY/][OWNER/]NAME[:TAG]: a registry has a dot or a port before the first slash.
_PLAIN = re.compile(r"([a-z0-9]+/)?[a-z0-9][a-z0-9._-]*(:[A-Za-z0-9._-]+)?")


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(one, rest) for one, _, rest in (line.partition(" ") for line in lines)]


def of(name: str) -> list[str]:
    return [rest for one, rest in instructions() if one == name]


@pytest.fixture(scope="module", params=["compose", "replicas"])
def compose(request: pytest.FixtureRequest) -> dict[str, Any]:
    [found] = documents(DEPLOY / f"compose/{request.param}.yaml")
    return found


def servers(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {
        name: one for name, one in compose["services"].items() if one.get("command") == ["serve"]
    }
    assert found
    return found


def ignored() -> list[str]:
    return [
        line
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]


def test_what_the_dockerfile_copies_exists_and_is_not_ignored() -> None:
    kept = {line[1:] for line in ignored() if line.startswith("!")}
    sources = [
        source for rest in of("COPY") if "--from" not in rest for source in shlex.split(rest)[:-1]
    ]

    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(source == one or source.startswith(f"{one}/") for one in kept), source
    assert ignored()[0] == "*"


def test_the_image_is_built_in_stages_and_runs_as_an_unprivileged_user() -> None:
    first, last = of("FROM")
    assert first.endswith(" AS build")
    assert _PLAIN.fullmatch(first.split()[0])
    assert first.split()[0] == last
    [user] = of("USER")
    assert all(int(part) > 0 for part in user.split(":"))
    # Only the environment comes from the build stage.
    after = instructions()[[rest for _, rest in instructions()].index(last) :]
    assert [rest for one, rest in after if one == "COPY"] == [
        "--from=build /opt/tasklogs /opt/tasklogs"
    ]


def test_every_installed_package_is_locked_with_hashes() -> None:
    installs = [
        part
        for rest in of("RUN")
        for part in rest.split("&&")
        if " install " in part and "pip" in part
    ]
    assert len(installs) == 3
    for part in installs:
        assert "--require-hashes" in part or ("--no-deps" in part and "--no-index" in part)


def test_commands_and_variables_of_the_image_exist() -> None:
    [entry], [command] = of("ENTRYPOINT"), of("CMD")
    assert (entry, command) == ('["tasklogs"]', '["serve"]')
    assert "Usage" in help_of("serve")
    assert "Usage" in help_of("agent")
    named = set().union(*(variables_in(rest) for rest in of("ENV")))
    assert named <= variables_of("serve")


def test_the_serving_lock_is_a_part_of_the_dev_lock_and_has_every_dependency() -> None:
    whole, serving = pins("dev"), pins("serve")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [
        *project["dependencies"],
        *project["optional-dependencies"]["server"],
        *project["optional-dependencies"]["telemetry"],
    ]

    # `make setup` after `make run` only adds packages, so a running server keeps its files.
    assert serving.items() <= whole.items()
    for requirement in needed:
        name = re.split(r"[<>=;\[ ]", requirement)[0].lower().replace("_", "-")
        assert name in serving, f"{name}: run `make lock`"
    assert not {"pytest", "mypy", "ruff", "grpcio-tools"} & set(serving)


def pins(name: str) -> dict[str, str]:
    text = (ROOT / f"requirements/{name}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE))


def test_images_name_no_registry(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert _PLAIN.fullmatch(service["image"])
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for name in re.findall(r"image: *(\S+)", file.read_text()):
            assert _PLAIN.fullmatch(name), name


def test_variables_in_compose_are_settings(compose: dict[str, Any]) -> None:
    agent = compose["services"]["agent"]
    assert agent["command"] == ["agent"]
    for service in (*servers(compose).values(), agent):
        [command] = service["command"]
        assert {one for one in service["environment"] if one.startswith("TASKLOGS_")} <= (
            variables_of(command)
        )


def test_compose_builds_from_the_root_and_defines_its_networks_and_volumes(
    compose: dict[str, Any],
) -> None:
    here = DEPLOY / "compose"
    for server in servers(compose).values():
        context = (here / server["build"]["context"]).resolve()
        assert context == ROOT
        assert (context / server["build"]["dockerfile"]).samefile(DOCKERFILE)
    for service in compose["services"].values():
        assert set(service["networks"]) <= set(compose["networks"])
        assert set(service.get("depends_on", [])) <= set(compose["services"])
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (here / source).is_file()


def test_ports_in_compose_are_open_to_this_machine_only(compose: dict[str, Any]) -> None:
    for server in servers(compose).values():
        assert server["environment"]["TASKLOGS_INSECURE"] == "true"
    for service in compose["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_envoy_balances_the_servers_of_its_compose_file_only() -> None:
    [compose] = documents(DEPLOY / "compose/replicas.yaml")
    [config] = documents(DEPLOY / "compose/envoy.yaml")
    [cluster] = config["static_resources"]["clusters"]
    [group] = cluster["load_assignment"]["endpoints"]
    addresses = [one["endpoint"]["address"]["socket_address"] for one in group["lb_endpoints"]]
    [listener] = config["static_resources"]["listeners"]
    balancer = compose["services"]["balancer"]

    assert {one["address"] for one in addresses} == set(servers(compose))
    assert {str(one["port_value"]) for one in addresses} == {
        one["environment"]["TASKLOGS_LISTEN"].rpartition(":")[2]
        for one in servers(compose).values()
    }
    assert len(servers(compose)) == 2
    assert set(balancer["depends_on"]) == set(servers(compose))
    [port] = balancer["ports"]
    assert int(port.rpartition(":")[2]) == listener["address"]["socket_address"]["port_value"]
    agent = compose["services"]["agent"]["environment"]
    assert agent["TASKLOGS_SERVER"].partition(":")[0] in compose["services"]


def test_nothing_in_deploy_names_a_path_of_one_machine() -> None:
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file():
            assert str(Path.home()) not in path.read_text(), path
