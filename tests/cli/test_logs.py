"""`tasklogs logs` against a scripted server."""

from __future__ import annotations

import json
import os
import signal

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from tasklogs.v1 import task_logs_pb2, types_pb2
from tests.cli.command import finish, run, run_on_terminal, started
from tests.cli.samples import entry, page
from tests.client.scripted_server import Refusal, ScriptedServer, Silence
from tests.support.fakes.log_server import ACTIVE, entries, log_server, status

HOSTILE = "\x1b]0;owned\x07 \u202eevil\r\n"
UTC = {"TZ": "UTC"}
INPUT, OUTPUT = types_pb2.TASK_LOG_TYPE_INPUT, types_pb2.TASK_LOG_TYPE_OUTPUT


def refusal() -> Refusal:
    reason = error_details_pb2.ErrorInfo(reason="TOKEN_EXPIRED", domain="tasklogs.v1")
    return Refusal(grpc.StatusCode.UNAUTHENTICATED, "expired", [reason])


async def test_text_shows_author_time_and_content(scripted: ScriptedServer) -> None:
    scripted.script.append(page(entry(0, "hello"), entry(1, "hi\nyou", dropped_bytes=131_072)))

    finished = await run("logs", "local/demo", "--server", scripted.address, env=UTC)

    assert finished.code == 0
    assert finished.stdout == (
        "#0 user, 2026-11-18 11:06:40+00:00\nhello\n\n"
        "#1 agent, 2026-11-18 11:06:41+00:00, without its first 131,072 bytes\nhi\nyou\n\n"
    )
    assert finished.stderr == ""


NAMED = [
    (types_pb2.TASK_LOG_TYPE_TOOL_CALL, "bash", "#0 tool call bash, "),
    (types_pb2.TASK_LOG_TYPE_TOOL_RESULT, "bash", "#0 tool result bash, "),
    (types_pb2.TASK_LOG_TYPE_THOUGHT, "", "#0 thought, "),
    (types_pb2.TASK_LOG_TYPE_NOTICE, "", "#0 notice, "),
    (types_pb2.TASK_LOG_TYPE_NOTICE, "x\x1b[2J\ny", "#0 notice x\\x1b[2J\\ny, "),
]


@pytest.mark.parametrize("follows", [False, True], ids=["read", "follow"])
async def test_headings_have_the_type_and_the_name(scripted: ScriptedServer, follows: bool) -> None:
    shown = [entry(0, "x") for _ in NAMED]
    for number, (one, (type_, name, _)) in enumerate(zip(shown, NAMED, strict=True)):
        one.id, one.revision = number, number + 1
        one.type, one.name = type_, name
    if follows:
        async with log_server() as server:
            server.streams = [[status("a", ACTIVE), entries("b", *shown), refusal()]]
            finished = await run("logs", "-f", "local/demo", "--server", server.address, env=UTC)
    else:
        scripted.script.append(page(*shown))
        finished = await run("logs", "local/demo", "--server", scripted.address, env=UTC)

    headings = [line for line in finished.stdout.split("\n") if line.startswith("#")]
    expected = [heading for _, _, heading in NAMED]
    assert len(headings) == len(expected)
    for number, (found, wanted) in enumerate(zip(headings, expected, strict=True)):
        assert found.startswith(wanted.replace("#0", f"#{number}"))


def conversation_with_a_tool() -> list[types_pb2.TaskLogEntry]:
    made = [
        entry(0, "Which files?"),
        entry(1, '{\n  "command": "ls"\n}'),
        entry(2, "".join(f"{number}\n" for number in range(100))),
        entry(3, "99 files."),
        entry(4, "compacted"),
        entry(5, "hm"),
    ]
    made[1].type, made[1].name = types_pb2.TASK_LOG_TYPE_TOOL_CALL, "bash"
    made[1].call_id = made[2].call_id = "c1"
    made[2].type, made[2].name = types_pb2.TASK_LOG_TYPE_TOOL_RESULT, "bash"
    made[4].type, made[5].type = types_pb2.TASK_LOG_TYPE_NOTICE, types_pb2.TASK_LOG_TYPE_THOUGHT
    return made


async def printed(
    scripted: ScriptedServer, follows: bool, *options: str, terminal: bool = True
) -> str:
    call = run_on_terminal if terminal else run
    if follows:
        async with log_server() as server:
            server.streams = [
                [status("a", ACTIVE), entries("b", *conversation_with_a_tool()), refusal()]
            ]
            arguments = ("logs", "-f", "local/demo", *options, "--server", server.address)
            return (await call(*arguments, env=UTC)).stdout
    scripted.script.append(page(*conversation_with_a_tool()))
    arguments = ("logs", "local/demo", *options, "--server", scripted.address)
    return (await call(*arguments, env=UTC)).stdout


@pytest.mark.parametrize("follows", [False, True], ids=["read", "follow"])
async def test_on_a_terminal_a_call_is_one_line_a_result_is_short_and_a_notice_is_dim(
    scripted: ScriptedServer, follows: bool
) -> None:
    screen = await printed(scripted, follows)

    assert (
        "Which files?\n\n"
        '#1 tool call bash, 2026-11-18 11:06:41+00:00: { "command": "ls" }\n\n'
        "\x1b[1m#2 tool result bash, 2026-11-18 11:06:42+00:00\x1b[0m\n"
        "0\n1\n2\n3\n4\n… (more with -v)\n\n"
    ) in screen
    assert (
        "\x1b[2m#4 notice, 2026-11-18 11:06:44+00:00\x1b[0m\n\x1b[2mcompacted\x1b[0m\n\n"
        "\x1b[2m#5 thought, 2026-11-18 11:06:45+00:00\x1b[0m\n\x1b[2mhm\x1b[0m\n\n"
    ) in screen


@pytest.mark.parametrize("follows", [False, True], ids=["read", "follow"])
async def test_a_result_that_does_not_follow_its_call_names_it(
    scripted: ScriptedServer, follows: bool
) -> None:
    made = conversation_with_a_tool()
    made[3].type, made[3].call_id = types_pb2.TASK_LOG_TYPE_TOOL_RESULT, "c1"
    if follows:
        async with log_server() as server:
            server.streams = [[status("a", ACTIVE), entries("b", *made), refusal()]]
            finished = await run("logs", "-f", "local/demo", "--server", server.address, env=UTC)
    else:
        scripted.script.append(page(*made))
        finished = await run("logs", "local/demo", "--server", scripted.address, env=UTC)

    assert "#2 tool result bash, 2026" in finished.stdout
    assert "#3 tool result of #1, 2026" in finished.stdout


@pytest.mark.parametrize("follows", [False, True], ids=["read", "follow"])
@pytest.mark.parametrize(
    ("options", "terminal"), [(("-v",), True), (("--raw",), True), ((), False)]
)
async def test_all_of_a_call_and_a_result_is_shown_on_request_and_in_a_pipe(
    scripted: ScriptedServer, follows: bool, options: tuple[str, ...], terminal: bool
) -> None:
    text = await printed(scripted, follows, *options, terminal=terminal)

    text = text.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert (
        '#1 tool call bash, 2026-11-18 11:06:41+00:00\n{\n  "command": "ls"\n}\n\n'
        "#2 tool result bash, 2026-11-18 11:06:42+00:00\n0\n1\n"
    ) in text
    assert "97\n98\n99\n\n" in text


async def test_a_terminal_without_colours_dims_nothing(scripted: ScriptedServer) -> None:
    scripted.script.append(page(*conversation_with_a_tool()))

    arguments = ("logs", "local/demo", "--server", scripted.address)
    screen = (await run_on_terminal(*arguments, env=UTC | {"NO_COLOR": "1"})).stdout

    assert "\x1b" not in screen
    assert "compacted" in screen


async def test_verbose_needs_text_output(scripted: ScriptedServer) -> None:
    finished = await run("logs", "local/demo", "-v", "-o", "json", "--server", scripted.address)
    assert finished.code == 2
    assert "only with -o text" in finished.stderr


@pytest.mark.parametrize("follows", [False, True], ids=["read", "follow"])
async def test_json_has_the_names_and_types(scripted: ScriptedServer, follows: bool) -> None:
    named = entry(0, "{}")
    named.type = types_pb2.TASK_LOG_TYPE_TOOL_CALL
    named.source_id, named.name, named.call_id = "m1", "bash", "c1"
    if follows:
        async with log_server() as server:
            server.streams = [[status("a", ACTIVE), entries("b", named), refusal()]]
            options = ("--server", server.address, "-o", "jsonl")
            finished = await run("logs", "-f", "local/demo", *options)
        (shown,) = json.loads(finished.stdout.split("\n")[1])["entries"]["logs"]
    else:
        scripted.script.append(page(named))
        options = ("--server", scripted.address, "-o", "jsonl")
        shown = json.loads((await run("logs", "local/demo", *options)).stdout)

    assert (shown["type"], shown["sourceId"], shown["name"], shown["callId"]) == (
        "TASK_LOG_TYPE_TOOL_CALL",
        "m1",
        "bash",
        "c1",
    )


async def test_a_stored_log_is_announced_with_its_time_on_stderr(scripted: ScriptedServer) -> None:
    scripted.script.append(page(entry(0, "hello"), snapshot=True))

    finished = await run("logs", "local/demo", "--server", scripted.address, env=UTC)

    assert finished.stdout.startswith("#0 user")
    assert finished.stderr == (
        "tasklogs: local/demo is paused: the log as stored at 2026-11-18 11:08:20+00:00\n"
    )


async def test_a_task_with_nothing_stored_says_so(scripted: ScriptedServer) -> None:
    nothing = page(snapshot=True)
    nothing.ClearField("snapshot_at")
    scripted.script.append(nothing)

    finished = await run("logs", "local/demo", "--server", scripted.address)

    assert (finished.code, finished.stdout) == (0, "")
    assert finished.stderr == "tasklogs: local/demo is paused: nothing has been stored yet\n"


async def test_every_page_is_read_with_the_same_arguments(scripted: ScriptedServer) -> None:
    scripted.script += [page(entry(0, "a"), next_page_token="2"), page(entry(1, "b"))]

    finished = await run(
        *("logs", "local/demo", "-n", "5", "--source", "SNAPSHOT", "--epoch", "2"),
        *("--max-staleness", "1.5", "-o", "jsonl", "--server", scripted.address),
        *("--types", "output, INPUT", "--types", "output"),
    )

    first = task_logs_pb2.GetTaskLogsRequest(
        task="local/demo",
        tail=5,
        source=task_logs_pb2.LOG_SOURCE_SNAPSHOT,
        epoch=2,
        max_staleness=Duration(seconds=1, nanos=500_000_000),
        types=[OUTPUT, INPUT, OUTPUT],
    )
    second = task_logs_pb2.GetTaskLogsRequest()
    second.CopyFrom(first)
    second.page_token = "2"
    assert scripted.requests == [first, second]
    assert [json.loads(line)["content"] for line in finished.stdout.splitlines()] == ["a", "b"]


@pytest.mark.parametrize("typed", ["answer", "", "input,", "unspecified", "1"])
async def test_an_unknown_type_is_bad_usage_and_names_the_known_ones(typed: str) -> None:
    finished = await run("logs", "local/demo", "--types", typed)

    assert finished.code == 2
    assert "'input'" in finished.stderr
    assert "'output'" in finished.stderr


async def test_no_entries_of_these_types_is_said(scripted: ScriptedServer) -> None:
    scripted.script.append(page())

    finished = await run("logs", "local/demo", "--types", "input", "--server", scripted.address)

    assert finished.stderr == "tasklogs: local/demo: no entries of these types\n"


async def test_the_first_page_is_shown_before_the_next_is_there(scripted: ScriptedServer) -> None:
    scripted.script += [page(entry(0, "x" * 100_000), next_page_token="2"), Silence()]

    async with started("logs", "local/demo", "--server", scripted.address) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() != b""
        process.send_signal(signal.SIGINT)
        await finish(process)


async def test_json_is_one_object_over_all_pages_with_whole_enum_names(
    scripted: ScriptedServer,
) -> None:
    scripted.script += [page(entry(0, HOSTILE), next_page_token="2"), page(entry(1, ""))]

    finished = await run("logs", "local/demo", "-o", "json", "--server", scripted.address)

    shown = json.loads(finished.stdout)
    assert shown["status"] == "TASK_STATUS_ACTIVE"
    assert (shown["snapshot"], shown["cursor"]) == (False, "here")
    assert [log["content"] for log in shown["logs"]] == [HOSTILE, ""]
    assert shown["logs"][0]["type"] == "TASK_LOG_TYPE_INPUT"
    assert "nextPageToken" not in shown


async def test_json_of_an_empty_log_has_an_empty_list(scripted: ScriptedServer) -> None:
    scripted.script.append(page())

    finished = await run("logs", "local/demo", "-o", "json", "--server", scripted.address)

    assert json.loads(finished.stdout)["logs"] == []


@pytest.mark.parametrize(("options", "shown"), [((), HOSTILE.rstrip()), (("--raw",), HOSTILE)])
async def test_in_a_pipe_control_sequences_are_unchanged(
    scripted: ScriptedServer, options: tuple[str, ...], shown: str
) -> None:
    scripted.script.append(page(entry(0, HOSTILE)))

    async with started("logs", "local/demo", *options, "--server", scripted.address) as process:
        stdout, _ = await process.communicate()

    assert f"\n{shown}\n".encode() in stdout


PADDED = "Hello   \n" + "        \n" * 968 + "you  \n" + "\n" * 4


@pytest.mark.parametrize("follows", [False, True], ids=["read", "follow"])
@pytest.mark.parametrize(
    ("options", "shown"),
    [((), "Hello\n… 968 blank lines\nyou\n\n"), (("--raw",), f"{PADDED}\n")],
    ids=["text", "raw"],
)
async def test_what_a_screen_is_padded_with_is_left_out(
    scripted: ScriptedServer, follows: bool, options: tuple[str, ...], shown: str
) -> None:
    if follows:
        async with log_server() as server:
            server.streams = [[status("a", ACTIVE), entries("b", entry(0, PADDED)), refusal()]]
            finished = await run("logs", "-f", "x/y", *options, "--server", server.address)
    else:
        scripted.script.append(page(entry(0, PADDED)))
        finished = await run("logs", "x/y", *options, "--server", scripted.address)

    assert finished.stdout.partition("\n")[2] == shown


async def test_gos_zero_time_is_shown_as_a_time(scripted: ScriptedServer) -> None:
    unset = entry(0, "hello")
    unset.time.FromJsonString("0001-01-01T00:00:00Z")

    for zone in ("UTC", "America/New_York", "Asia/Tokyo"):
        scripted.script.append(page(unset))
        finished = await run("logs", "local/demo", "--server", scripted.address, env={"TZ": zone})
        assert finished.stdout.startswith("#0 user, 0001-01-01 0")


async def test_on_a_terminal_control_sequences_are_escaped(scripted: ScriptedServer) -> None:
    scripted.script.append(page(entry(0, HOSTILE)))

    finished = await run_on_terminal("logs", "local/demo", "--server", scripted.address)

    assert r"\x1b]0;owned\x07 \u202eevil" in finished.stdout
    assert "\x1b]" not in finished.stdout


async def test_headings_are_bold_on_a_terminal_unless_no_color_is_set(
    scripted: ScriptedServer,
) -> None:
    scripted.script += [page(entry(0, "hello")), page(entry(0, "hello"))]
    arguments = ("logs", "local/demo", "--server", scripted.address)

    assert "\x1b[1m#0 user" in (await run_on_terminal(*arguments)).stdout
    assert "\x1b" not in (await run_on_terminal(*arguments, env={"NO_COLOR": "1"})).stdout


async def test_json_on_a_terminal_steers_nothing_and_holds_the_same_value(
    scripted: ScriptedServer,
) -> None:
    scripted.script.append(page(entry(0, "\x9b31m" + HOSTILE)))

    finished = await run_on_terminal(
        "logs", "local/demo", "-o", "jsonl", "--server", scripted.address
    )

    assert all(character.isprintable() for character in finished.stdout.removesuffix("\n"))
    assert json.loads(finished.stdout)["content"] == "\x9b31m" + HOSTILE


async def test_the_server_and_the_timeout_come_from_the_environment_too(
    scripted: ScriptedServer,
) -> None:
    scripted.script.append(page(entry(0, "hello")))

    finished = await run(
        "logs",
        "local/demo",
        env={"TASKLOGS_SERVER": scripted.address, "TASKLOGS_TIMEOUT": "5"},
    )

    assert finished.code == 0


async def test_ctrl_c_ends_it_quietly_with_130(scripted: ScriptedServer) -> None:
    scripted.script.append(Silence())

    async with started("logs", "local/demo", "--server", scripted.address) as process:
        await scripted.called.wait()
        process.send_signal(signal.SIGINT)
        finished = await finish(process)

    assert (finished.code, finished.stdout, finished.stderr) == (130, "", "")


@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_a_reader_that_left_is_not_reported(scripted: ScriptedServer, size: int) -> None:
    scripted.script += [page(entry(0, "x" * size), next_page_token="2"), page(entry(1, "y"))]
    reading, writing = os.pipe()
    os.close(reading)

    async with started("logs", "local/demo", "--server", scripted.address, stdout=writing) as it:
        os.close(writing)
        finished = await finish(it)

    assert finished.stderr == ""
