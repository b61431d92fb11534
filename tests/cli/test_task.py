"""`tasklogs task ...` against a scripted server."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from uuid import UUID

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc.error_details_pb2 import ErrorInfo

from tasklogs.v1 import tasks_pb2, types_pb2
from tests.cli.command import run, run_on_terminal, started
from tests.cli.samples import TASK_ID, task
from tests.client.scripted_server import Refusal, ScriptedServer, Silence

UTC = {"TZ": "UTC"}
CREATED = tasks_pb2.CreateTaskResponse(task=task(), agent_token="secret")


async def test_create_prints_the_task_and_its_token(scripted: ScriptedServer) -> None:
    scripted.script.append(CREATED)

    finished = await run(
        *("task", "create", "demo", "--owner", "local", "--display-name", "A demo"),
        *("--prompt", "do it", "--standalone", "--server", scripted.address),
    )

    assert scripted.requests == [
        tasks_pb2.CreateTaskRequest(
            name="demo", owner="local", display_name="A demo", prompt="do it", standalone=True
        )
    ]
    assert finished.code == 0
    assert f"created local/demo, paused, id {TASK_ID}\n" in finished.stdout
    assert "agent token, shown only once: secret\n" in finished.stdout


async def test_create_sends_labels_and_the_request_id(scripted: ScriptedServer) -> None:
    scripted.script.append(CREATED)

    await run(
        *("task", "create", "demo", "--label", "env=prod", "--label", "query=a=b"),
        *("--label", "empty=", "--request-id", TASK_ID, "--server", scripted.address),
    )

    labels = {"env": "prod", "query": "a=b", "empty": ""}
    assert scripted.requests == [
        tasks_pb2.CreateTaskRequest(name="demo", labels=labels, request_id=TASK_ID)
    ]


async def test_create_as_json_is_the_response(scripted: ScriptedServer) -> None:
    scripted.script.append(CREATED)

    finished = await run("task", "create", "demo", "-o", "json", "--server", scripted.address)

    shown = json.loads(finished.stdout)
    assert shown["agentToken"] == "secret"
    assert shown["task"]["status"] == "TASK_STATUS_PAUSED"
    assert shown["task"]["agentConnected"] is False
    assert shown["task"]["log"]["bytes"] == "12345"


TASK, OTHER = UUID(int=1), UUID(int=2)


def token_of(task: UUID, secret: str = "secret") -> str:
    return f"tla_{task.hex}_{secret}"


def rotated(token: str) -> tasks_pb2.RotateAgentTokenResponse:
    return tasks_pb2.RotateAgentTokenResponse(agent_token=token)


async def test_only_the_owner_can_read_a_token_file(
    scripted: ScriptedServer, tmp_path: Path
) -> None:
    first, newer = token_of(TASK), token_of(TASK, "newer")
    created_task = tasks_pb2.CreateTaskResponse()
    created_task.CopyFrom(CREATED)
    created_task.agent_token = first
    scripted.script += [created_task, tasks_pb2.Task(id=str(TASK)), rotated(newer)]
    token_file = tmp_path / "demo.token"
    file_and_server = ("--token-file", str(token_file), "--server", scripted.address)

    created = await run("task", "create", "demo", *file_and_server)

    assert token_file.read_text() == f"{first}\n"
    assert token_file.stat().st_mode & 0o777 == 0o600
    assert "secret" not in created.stdout

    finished = await run("task", "rotate-token", "local/demo", "-o", "json", *file_and_server)

    assert token_file.read_text() == f"{newer}\n"
    assert json.loads(finished.stdout) == {}
    assert list(tmp_path.iterdir()) == [token_file]


@pytest.mark.parametrize("command", ["create", "rotate-token"])
@pytest.mark.parametrize(
    ("held", "what"),
    [(token_of(OTHER), f"the agent token of the task {OTHER}"), ("a key", "something else")],
    ids=["another task's token", "something else"],
)
async def test_a_file_with_something_else_is_replaced_only_by_force(
    scripted: ScriptedServer, tmp_path: Path, command: str, held: str, what: str
) -> None:
    token_file = tmp_path / "demo.token"
    token_file.write_text(held)
    arguments = ("task", command, "demo", "--token-file", str(token_file))
    asks = command == "rotate-token" and held.startswith("tla_")
    scripted.script += [tasks_pb2.Task(id=str(TASK))] * asks

    refused = await run(*arguments, "--server", scripted.address)

    assert refused.code == 1
    assert refused.stderr == (f"tasklogs: {token_file} holds {what}: to replace it, use --force\n")
    assert token_file.read_text() == held
    assert len(scripted.requests) == asks

    scripted.script += [CREATED if command == "create" else rotated(token_of(TASK))]
    forced = await run(*arguments, "--force", "--server", scripted.address)

    assert forced.code == 0, forced.stderr
    assert token_file.read_text() != held


async def test_an_empty_file_may_become_a_token_file(
    scripted: ScriptedServer, tmp_path: Path
) -> None:
    """`mktemp` makes one."""
    token_file = tmp_path / "demo.token"
    token_file.touch(mode=0o600)
    scripted.script += [CREATED]
    arguments = ("--token-file", str(token_file), "--server", scripted.address)
    finished = await run("task", "create", "demo", *arguments)
    assert finished.code == 0, finished.stderr
    assert token_file.read_text() == "secret\n"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_signal_during_the_call_leaves_no_file(
    scripted: ScriptedServer, tmp_path: Path, how: signal.Signals
) -> None:
    scripted.script += [Silence()]
    arguments = ("--token-file", str(tmp_path / "demo.token"), "--server", scripted.address)
    async with started("task", "create", "demo", *arguments) as process:
        await scripted.called.wait()
        process.send_signal(how)
        await process.wait()
    assert list(tmp_path.iterdir()) == []


async def test_an_unwritable_token_file_is_found_before_the_call(
    scripted: ScriptedServer, tmp_path: Path
) -> None:
    for place in (tmp_path, tmp_path / "nowhere" / "demo.token"):
        finished = await run(
            "task", "create", "demo", "--token-file", str(place), "--server", scripted.address
        )

        assert finished.code == 1
        assert f"tasklogs: cannot write the token to {place}: " in finished.stderr
    assert scripted.requests == []


async def test_a_refused_task_leaves_no_token_file(
    scripted: ScriptedServer, tmp_path: Path
) -> None:
    finished = await run(
        *("task", "create", "demo", "--token-file", str(tmp_path / "t")),
        *("--server", "127.0.0.1:1"),
    )

    assert finished.code == 1
    assert list(tmp_path.iterdir()) == []


async def test_list_in_a_pipe_is_tab_separated_over_all_pages(scripted: ScriptedServer) -> None:
    scripted.script += [
        tasks_pb2.ListTasksResponse(tasks=[task("a")], next_page_token="2"),
        # AIP-158: a page may be empty and not the last.
        tasks_pb2.ListTasksResponse(next_page_token="3"),
        tasks_pb2.ListTasksResponse(tasks=[task("b")]),
    ]

    finished = await run(
        *("task", "list", "--owner", "local", "--status", "Paused", "--server", scripted.address),
        env=UTC,
    )

    rest = f"paused\t-\t2\t2026-11-18 11:08:20+00:00\t2026-11-18 11:06:40+00:00\t{TASK_ID}\n"
    assert finished.stdout == f"local/a\t{rest}local/b\t{rest}"
    status = types_pb2.TASK_STATUS_PAUSED
    assert scripted.requests == [
        tasks_pb2.ListTasksRequest(owner="local", status=status, page_token=token)
        for token in ("", "2", "3")
    ]


async def test_list_on_a_terminal_is_a_table(scripted: ScriptedServer) -> None:
    scripted.script.append(tasks_pb2.ListTasksResponse(tasks=[task()]))

    finished = await run_on_terminal(
        "task", "list", "--server", scripted.address, env=UTC | {"NO_COLOR": "1", "COLUMNS": "80"}
    )

    heading, row = finished.stdout.splitlines()
    assert "entries" in heading
    assert row.split() == ["local/demo", "paused", "-", "2", "2026-11-18", "11:08:20+00:00"]
    # Under NO_COLOR, Rich keeps the heading bold, which is not a colour.
    assert "\x1b[3" not in finished.stdout


@pytest.mark.parametrize(
    ("columns", "heading"),
    [
        (10, "task"),
        (40, "task status agent"),
        (60, "task status agent entries"),
        (80, "task status agent entries log as of"),
        (200, "task status agent entries log as of"),
    ],
)
async def test_a_narrow_terminal_shows_the_names_first(
    scripted: ScriptedServer, columns: int, heading: str
) -> None:
    name = "a-long-name-" * 3
    scripted.script.append(tasks_pb2.ListTasksResponse(tasks=[task(name)]))

    finished = await run_on_terminal(
        *("task", "list", "--server", scripted.address),
        env=UTC | {"NO_COLOR": "1", "COLUMNS": str(columns)},
    )

    shown = finished.stdout.replace("\x1b[1m", "").replace("\x1b[0m", "")
    first, *rows = shown.splitlines()
    assert first.split() == heading.split()
    width = min(len(f"local/{name}"), columns)
    names = "".join(row.split(" ")[0] for row in rows)
    assert names == f"local/{name}"
    assert len(rows[0].split(" ")[0]) >= min(20, width)
    assert all(len(row) <= columns for row in (first, *rows))


async def test_list_as_json_is_an_array(scripted: ScriptedServer) -> None:
    scripted.script += [
        tasks_pb2.ListTasksResponse(tasks=[task("a")], next_page_token="2"),
        tasks_pb2.ListTasksResponse(tasks=[task("b")]),
        tasks_pb2.ListTasksResponse(),
    ]
    arguments = ("task", "list", "-o", "json", "--server", scripted.address)

    assert [item["name"] for item in json.loads((await run(*arguments)).stdout)] == ["a", "b"]
    assert json.loads((await run(*arguments)).stdout) == []


async def test_list_selects_by_labels_and_shows_them_as_json(scripted: ScriptedServer) -> None:
    labelled = task()
    labelled.labels["env"] = "prod"
    labelled.prompt = "do it"
    page = tasks_pb2.ListTasksResponse(tasks=[labelled])
    scripted.script += [page, page]
    arguments = ("task", "list", "--label", "env=prod", "--label", "team", "-o", "json")

    basic = await run(*arguments, "--server", scripted.address)
    full = await run(*arguments, "--view", "Full", "--server", scripted.address)

    selected = tasks_pb2.ListTasksRequest(labels=["env=prod", "team"])
    assert scripted.requests[0] == selected
    selected.view = tasks_pb2.TASK_VIEW_FULL
    assert scripted.requests[1] == selected
    [shown] = json.loads(basic.stdout)
    assert shown["labels"] == {"env": "prod"}
    assert "prompt" not in shown
    assert json.loads(full.stdout)[0]["prompt"] == "do it"


async def test_get_shows_labels_on_one_line(scripted: ScriptedServer) -> None:
    labelled = task()
    labelled.labels.update({"team": "\x1b[2J", "env": "prod"})
    scripted.script.append(labelled)

    finished = await run("task", "get", TASK_ID, "--server", scripted.address)

    assert r"  labels    env=prod, team=\x1b[2J" in finished.stdout.splitlines()


def labelled_task(etag: str, **labels: str) -> tasks_pb2.Task:
    made = task()
    made.etag = etag
    made.labels.update(labels)
    return made


async def test_update_changes_the_labels_that_are_named_and_keeps_the_others(
    scripted: ScriptedServer,
) -> None:
    scripted.script += [
        labelled_task("e1", env="dev", team="x", old="1"),
        labelled_task("e2", env="prod", team="x"),
    ]

    finished = await run(
        *("task", "update", "local/demo", "--label", "env=prod", "--remove-label", "old"),
        *("--remove-label", "never", "--server", scripted.address),
    )

    assert finished.code == 0
    assert "  labels    env=prod, team=x" in finished.stdout.splitlines()
    assert scripted.requests == [
        tasks_pb2.GetTaskRequest(task="local/demo", view=tasks_pb2.TASK_VIEW_BASIC),
        tasks_pb2.UpdateTaskRequest(
            task=TASK_ID,
            labels={"env": "prod", "team": "x"},
            update_mask=FieldMask(paths=["labels"]),
            etag="e1",
        ),
    ]


async def test_update_can_empty_the_display_name(scripted: ScriptedServer) -> None:
    scripted.script += [labelled_task("e1", env="dev"), labelled_task("e2", env="dev")]

    finished = await run(
        *("task", "update", "local/demo", "--display-name", "", "-o", "json"),
        *("--server", scripted.address),
    )

    assert json.loads(finished.stdout)["etag"] == "e2"
    assert scripted.requests[1] == tasks_pb2.UpdateTaskRequest(
        task=TASK_ID, update_mask=FieldMask(paths=["display_name"]), etag="e1"
    )


async def test_update_is_repeated_once_if_another_update_comes_in_between(
    scripted: ScriptedServer,
) -> None:
    reason = ErrorInfo(reason="ETAG_MISMATCH", domain="tasklogs.v1")
    mismatch = Refusal(grpc.StatusCode.ABORTED, "the task has another etag", [reason])
    arguments = ("task", "update", "local/demo", "--label", "a=1", "--server", scripted.address)
    scripted.script += [labelled_task("e1"), mismatch, labelled_task("e2", b="2")]
    scripted.script += [labelled_task("e3", a="1", b="2")]

    repeated = await run(*arguments)

    assert repeated.code == 0
    last = scripted.requests[-1]
    assert isinstance(last, tasks_pb2.UpdateTaskRequest)
    assert (last.etag, dict(last.labels)) == ("e2", {"a": "1", "b": "2"})

    scripted.script += [labelled_task("e1"), mismatch, labelled_task("e2"), mismatch]
    refused = await run(*arguments)

    assert refused.code == 1
    assert "ETAG_MISMATCH" in refused.stderr
    assert scripted.script == []


async def test_delete_may_allow_that_the_task_is_missing(scripted: ScriptedServer) -> None:
    scripted.script.append(tasks_pb2.DeleteTaskResponse())

    finished = await run(
        *("task", "delete", "local/demo", "--yes", "--allow-missing"),
        *("--server", scripted.address),
    )

    assert (finished.code, finished.stdout) == (0, "deleted local/demo, if it existed\n")
    assert scripted.requests == [tasks_pb2.DeleteTaskRequest(task="local/demo", allow_missing=True)]


async def test_get_shows_each_layer_of_the_status(scripted: ScriptedServer) -> None:
    scripted.script.append(task(display_name="\x1b[2Jgone"))

    finished = await run("task", "get", TASK_ID, "--server", scripted.address, env=UTC)

    assert scripted.requests == [tasks_pb2.GetTaskRequest(task=TASK_ID)]
    lines = finished.stdout.splitlines()
    assert lines[0] == "local/demo is paused"
    assert r"  called    \x1b[2Jgone" in lines
    assert "  build     2, stop succeeded: paused" in lines
    assert "  agent     start-timeout: active" in lines
    assert "  task app  not reported: not reported" in lines
    assert (
        "  log       epoch 2, 2 entries, revision 9, 12,345 bytes, as of 2026-11-18 11:08:20+00:00"
    ) in lines


async def test_delete_asks_on_a_terminal(scripted: ScriptedServer) -> None:
    arguments = ("task", "delete", "local/demo", "--server", scripted.address)

    refused = await run_on_terminal(*arguments, typed="n\n")

    assert refused.code == 1
    assert "Delete local/demo and its log permanently? [y/N]" in refused.stdout
    assert scripted.requests == []

    scripted.script.append(tasks_pb2.DeleteTaskResponse())
    agreed = await run_on_terminal(*arguments, typed="y\n")

    assert agreed.code == 0
    assert scripted.requests == [tasks_pb2.DeleteTaskRequest(task="local/demo")]


async def test_delete_with_yes_does_not_ask(scripted: ScriptedServer) -> None:
    scripted.script.append(tasks_pb2.DeleteTaskResponse())

    finished = await run("task", "delete", "local/demo", "--yes", "--server", scripted.address)

    assert (finished.code, finished.stdout) == (0, "deleted local/demo\n")


async def test_delete_without_a_terminal_requires_yes(scripted: ScriptedServer) -> None:
    finished = await run("task", "delete", "local/demo", "--server", scripted.address)

    assert finished.code == 2
    assert "--yes" in finished.stderr
    assert scripted.requests == []


async def test_enums_are_accepted_as_people_type_them(scripted: ScriptedServer) -> None:
    scripted.script += [
        tasks_pb2.ReportBuildResponse(task=task()),
        tasks_pb2.ReportAgentResponse(task=task()),
    ]
    build = ("--build-number", "2", "--server", scripted.address)

    reported = await run(
        "task",
        "report-build",
        "local/demo",
        *build,
        "--transition",
        "stop",
        "--job-status",
        "Failed",
    )
    await run(
        *("task", "report-agent", "local/demo", *build),
        *("--lifecycle", "SHUTTING_DOWN", "--app-health", "unhealthy"),
    )

    assert reported.stdout == "local/demo is paused\n"
    assert scripted.requests == [
        tasks_pb2.ReportBuildRequest(
            task="local/demo",
            build_number=2,
            transition=types_pb2.BUILD_TRANSITION_STOP,
            job_status=types_pb2.JOB_STATUS_FAILED,
        ),
        tasks_pb2.ReportAgentRequest(
            task="local/demo",
            build_number=2,
            lifecycle=types_pb2.AGENT_LIFECYCLE_SHUTTING_DOWN,
            app_health=types_pb2.APP_HEALTH_UNHEALTHY,
        ),
    ]


async def test_report_agent_leaves_omitted_options_unset(scripted: ScriptedServer) -> None:
    scripted.script.append(tasks_pb2.ReportAgentResponse(task=task()))

    finished = await run(
        *("task", "report-agent", TASK_ID, "--build-number", "1", "--lifecycle", "ready"),
        *("-o", "json", "--server", scripted.address),
    )

    assert scripted.requests == [
        tasks_pb2.ReportAgentRequest(
            task=TASK_ID, build_number=1, lifecycle=types_pb2.AGENT_LIFECYCLE_READY
        )
    ]
    shown = json.loads(finished.stdout)
    assert shown["status"] == "TASK_STATUS_PAUSED"
    assert "prompt" not in shown


async def test_a_status_of_a_newer_server_is_shown_by_its_number(scripted: ScriptedServer) -> None:
    newer = task()
    newer.status = 99  # type: ignore[assignment]
    scripted.script.append(newer)

    finished = await run("task", "get", TASK_ID, "--server", scripted.address)

    assert finished.stdout.startswith("local/demo is TaskStatus 99\n")
