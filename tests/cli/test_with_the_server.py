"""The commands with the real server."""

from __future__ import annotations

import json

import pytest
from google.protobuf.struct_pb2 import Struct

from tasklogs.v1 import task_agents_pb2, tasks_pb2, types_pb2
from tests.cli.command import Finished, run
from tests.support.fixtures.server import Server


async def command(server: Server, *arguments: str) -> Finished:
    return await run(*arguments, "--server", server.address)


async def upload(server: Server, agent_token: str, contents: list[str]) -> None:
    data = Struct()
    data.update(
        {
            "messages": [
                {
                    "id": id_,
                    "role": "user" if id_ % 2 else "agent",
                    "content": content,
                    "time": f"2026-11-22T10:{id_ // 60 % 60:02}:{id_ % 60:02}Z",
                }
                for id_, content in enumerate(contents)
            ]
        }
    )
    await server.agents.UploadLogSnapshot(
        task_agents_pb2.UploadLogSnapshotRequest(
            format=task_agents_pb2.SNAPSHOT_FORMAT_AGENTAPI, data=data
        ),
        metadata=(("authorization", f"Bearer {agent_token}"),),
    )


async def pause(server: Server, task: str) -> None:
    await server.tasks.ReportBuild(
        tasks_pb2.ReportBuildRequest(
            task=task,
            build_number=1,
            transition=types_pb2.BUILD_TRANSITION_STOP,
            job_status=types_pb2.JOB_STATUS_SUCCEEDED,
        )
    )


async def test_a_task_lives_from_create_to_delete(server: Server) -> None:
    created = await command(server, "task", "create", "demo", "-o", "json")
    assert json.loads(created.stdout)["agentToken"]

    again = await command(server, "task", "create", "demo")
    assert again.code == 1
    assert again.stderr.startswith("tasklogs: already exists: ")
    assert "(TASK_NAME_TAKEN)" in again.stderr

    started = await command(
        *(server, "task", "report-build", "local/demo", "--build-number", "1"),
        *("--transition", "start", "--job-status", "running"),
    )
    assert started.stdout == "local/demo is initializing\n"

    ready = await command(
        *(server, "task", "report-agent", "local/demo", "--build-number", "1"),
        *("--lifecycle", "ready", "--app-health", "healthy"),
    )
    assert ready.stdout == "local/demo is active\n"

    listed = await command(server, "task", "list", "--status", "active")
    assert listed.stdout.startswith("local/demo\tactive\t-\t0\t")

    stale = await command(
        *(server, "task", "report-build", "local/demo", "--build-number", "1"),
        *("--transition", "stop", "--job-status", "succeeded"),
    )
    assert "(STALE_REPORT)" in stale.stderr

    assert (await command(server, "task", "delete", "local/demo", "--yes")).code == 0
    gone = await command(server, "task", "get", "local/demo")
    assert gone.code == 1
    assert gone.stderr.startswith("tasklogs: not found: ")


async def test_labels_request_ids_and_updates_from_the_command_line(server: Server) -> None:
    creation = (
        *("task", "create", "demo", "--prompt", "do it", "--label", "env=prod", "-o", "json"),
        *("--request-id", "6b1f5a3e-8a53-4c1b-9df3-0123456789ab"),
    )
    created = json.loads((await command(server, *creation)).stdout)
    again = json.loads((await command(server, *creation)).stdout)
    assert again["task"] == created["task"]
    assert again["agentToken"] != created["agentToken"]
    other = await command(server, *creation, "--label", "team=x")
    assert (other.code, "request_id: " in other.stderr) == (1, True)

    updated = await command(
        *(server, "task", "update", "local/demo", "--display-name", "A demo"),
        *("--label", "team=x", "--remove-label", "env"),
    )
    assert "  called    A demo" in updated.stdout.splitlines()
    assert "  labels    team=x" in updated.stdout.splitlines()
    assert "  prompt    do it" in updated.stdout.splitlines()

    for label, found in (("team", 1), ("team=x", 1), ("env", 0)):
        listed = await command(server, "task", "list", "--label", label, "-o", "json")
        assert [task["labels"] for task in json.loads(listed.stdout)] == [{"team": "x"}] * found
    refused = await command(server, "task", "list", "--label", "Team")
    assert refused.stderr.startswith("tasklogs: invalid argument: labels: ")

    for _ in range(2):
        deleted = await command(
            *(server, "task", "delete", "local/demo", "--yes", "--allow-missing")
        )
        assert (deleted.code, deleted.stdout) == (0, "deleted local/demo, if it existed\n")


async def test_a_log_of_several_pages_is_read_whole(server: Server) -> None:
    contents = [f"{id_} " + "x" * 1500 for id_ in range(1400)]
    await upload(server, (await server.create_task()).agent_token, contents)
    await pause(server, "local/demo")

    lines = await command(server, "logs", "local/demo", "-o", "jsonl")
    whole = await command(server, "logs", "local/demo", "-o", "json")
    last = await command(server, "logs", "local/demo", "-n", "1")

    assert [json.loads(line)["content"] for line in lines.stdout.splitlines()] == contents
    assert [log["content"] for log in json.loads(whole.stdout)["logs"]] == contents
    assert last.stdout.splitlines()[1] == contents[-1]
    assert "local/demo is paused: the log as stored at " in last.stderr


async def test_more_tasks_than_a_page_holds_are_all_listed(server: Server) -> None:
    for number in range(101):
        await server.create_task(f"task-{number}")

    listed = await command(server, "task", "list")

    assert len(listed.stdout.splitlines()) == 101


async def test_a_refused_read_says_what_is_still_possible(server: Server) -> None:
    await upload(server, (await server.create_task()).agent_token, ["stored"])
    await server.tasks.ReportBuild(
        tasks_pb2.ReportBuildRequest(
            task="local/demo",
            build_number=1,
            transition=types_pb2.BUILD_TRANSITION_START,
            job_status=types_pb2.JOB_STATUS_FAILED,
        )
    )

    refused = await command(server, "logs", "local/demo")
    stored = await command(server, "logs", "local/demo", "--source", "snapshot")

    assert (refused.code, refused.stdout) == (1, "")
    assert "(TASK_STATE_CONFLICT); use --source snapshot" in refused.stderr
    assert (stored.code, stored.stdout.splitlines()[1]) == (0, "stored")
    assert "local/demo is in error: the log as stored at " in stored.stderr


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("logs", "demo"), "task"),
        (("logs", "local/demo", "--epoch", "7"), "epoch"),
        (("task", "create", "Not A Name"), "name"),
        (("task", "get", ""), "task"),
    ],
)
async def test_a_bad_field_is_named(server: Server, arguments: tuple[str, ...], field: str) -> None:
    await server.create_task()

    finished = await command(server, *arguments)

    assert finished.code == 1
    assert finished.stderr.startswith(f"tasklogs: invalid argument: {field}: ")


async def test_a_count_of_one_is_in_the_singular(server: Server) -> None:
    await upload(server, (await server.create_task()).agent_token, ["stored"])

    refused = await command(server, "logs", "local/demo", "--epoch", "7")

    assert "epoch: the task has 1 epoch" in refused.stderr
    assert "1 epochs" not in refused.stderr
