"""Every failure is one helpful line on stderr and exit code 1."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from tasklogs.cli.render.terminal_text import one_line
from tasklogs.cli.rpc_failure import describe
from tasklogs.connection.tls import Tls
from tasklogs.errors import TaskLogsRpcError
from tests.cli.command import Finished, run, run_on_terminal
from tests.client.scripted_server import Refusal, ScriptedServer, Silence
from tests.support.fakes.stream_server import StreamServer


def reason(name: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=name, domain="tasklogs.v1")


async def read(server: str, *options: str) -> Finished:
    return await run("logs", "local/demo", "--server", server, *options)


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        (
            Refusal(grpc.StatusCode.NOT_FOUND, "no such task", [reason("TASK_NOT_FOUND")]),
            "not found: no such task (TASK_NOT_FOUND)",
        ),
        (
            Refusal(
                grpc.StatusCode.FAILED_PRECONDITION,
                'task status is "error"',
                [reason("TASK_STATE_CONFLICT")],
            ),
            'failed precondition: task status is "error" (TASK_STATE_CONFLICT);'
            " use --source snapshot",
        ),
        (
            Refusal(
                grpc.StatusCode.UNAVAILABLE,
                "no agent",
                [
                    reason("AGENT_UNREACHABLE"),
                    error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2)),
                ],
            ),
            "unavailable: no agent (AGENT_UNREACHABLE); try again in 2 s;"
            " is the task's `tasklogs agent` running?"
            " --source snapshot reads the stored log",
        ),
        (
            Refusal(
                grpc.StatusCode.INVALID_ARGUMENT,
                "bad request",
                [
                    error_details_pb2.BadRequest(
                        field_violations=[
                            error_details_pb2.BadRequest.FieldViolation(
                                field="task", description="must be a UUID"
                            ),
                            error_details_pb2.BadRequest.FieldViolation(
                                field="epoch", description="too high"
                            ),
                        ]
                    )
                ],
            ),
            "invalid argument: task: must be a UUID; epoch: too high",
        ),
        (
            Refusal(grpc.StatusCode.PERMISSION_DENIED, ""),
            "permission denied: no reason was given; a proxy or another server said this",
        ),
        (
            Refusal(grpc.StatusCode.DATA_LOSS, "two\nlines \x1b[31m", [reason("LOG_CORRUPT")]),
            r"data loss: two lines \x1b[31m (LOG_CORRUPT)",
        ),
    ],
    ids=lambda value: value.code.name if isinstance(value, Refusal) else "",
)
async def test_a_refusal_is_one_line_with_code_reason_and_what_to_do(
    scripted: ScriptedServer, refusal: Refusal, line: str
) -> None:
    scripted.script.append(refusal)

    finished = await read(scripted.address)

    assert finished == Finished(1, "", f"tasklogs: {line}\n")


@pytest.mark.parametrize(
    ("reason", "message", "line"),
    [
        (
            "TOKEN_MISSING",
            "not authenticated: a token is needed: authorization: Bearer ...",
            "a token is needed: authorization: Bearer ... (TOKEN_MISSING);"
            " give a token: --auth-token-file FILE, or TASKLOGS_TOKEN",
        ),
        (
            "TOKEN_EXPIRED",
            "not authenticated: token expired",
            "token expired (TOKEN_EXPIRED); get a new one from the issuer"
            " (--auth-token-file FILE, or TASKLOGS_TOKEN)",
        ),
        (
            "TOKEN_INVALID",
            "not authenticated: token invalid",
            "token invalid (TOKEN_INVALID); get a new one from the issuer"
            " (--auth-token-file FILE, or TASKLOGS_TOKEN);"
            " the server's log has the cause at level debug",
        ),
        (
            "CERTIFICATE_INVALID",
            "not authenticated: certificate ambiguous",
            "certificate ambiguous (CERTIFICATE_INVALID); --tls-client-cert FILE must have one URI"
            " as subject alternative name or, without a URI, one DNS name",
        ),
    ],
    ids=["none", "expired", "invalid", "certificate"],
)
def test_refused_credentials_say_which_to_give_and_not_twice_that_they_were_refused(
    reason: str, message: str, line: str
) -> None:
    error = TaskLogsRpcError(code=grpc.StatusCode.UNAUTHENTICATED, message=message, reason=reason)

    assert describe(error, "127.0.0.1:50051", timeout_seconds=1) == f"unauthenticated: {line}"


def test_permission_denied_is_not_said_twice() -> None:
    error = TaskLogsRpcError(
        code=grpc.StatusCode.PERMISSION_DENIED,
        message="permission denied: not yours",
        reason="PERMISSION_DENIED",
    )

    line = describe(error, "127.0.0.1:50051", timeout_seconds=1)

    assert line == "permission denied: not yours"


@pytest.mark.parametrize(
    ("tls", "advice"),
    [
        (
            None,
            "if it requires TLS, use --tls-ca FILE; for a client certificate, --tls-client-cert",
        ),
        (Tls(), "if it requires a client certificate, use --tls-client-cert and --tls-client-key"),
        (
            Tls(certificate=Path("a.crt"), key=Path("a.key")),
            "it may have refused the certificate in a.crt: it has expired, or no authority of the"
            " server's --tls-client-ca signed it",
        ),
    ],
    ids=["plain text", "TLS", "with a certificate"],
)
def test_advice_on_a_closed_connection_depends_on_the_tls_settings(
    tls: Tls | None, advice: str
) -> None:
    error = TaskLogsRpcError(
        code=grpc.StatusCode.UNAVAILABLE,
        message="last error: UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed",
    )

    line = describe(error, "127.0.0.1:1", timeout_seconds=1, tls=tls)

    assert line == f"no connection to 127.0.0.1:1: it closed the connection; {advice}"


@pytest.mark.parametrize("code", grpc.StatusCode)
@pytest.mark.parametrize("message", ["", "why"])
def test_every_code_has_its_words(code: grpc.StatusCode, message: str) -> None:
    line = describe(
        TaskLogsRpcError(code=code, message=message), "127.0.0.1:50051", timeout_seconds=1
    )

    assert one_line(line) == line
    assert code.name not in line


def test_an_unexpected_error_is_reported_with_its_request_id() -> None:
    error = TaskLogsRpcError(
        code=grpc.StatusCode.INTERNAL,
        message="internal error",
        reason="INTERNAL",
        request_id="4f2a",
    )

    line = describe(error, "127.0.0.1:50051", timeout_seconds=1)

    assert line == (
        "internal: internal error; the server's log has the cause under request id 4f2a"
    )


def test_an_expected_error_is_reported_without_its_request_id() -> None:
    error = TaskLogsRpcError(
        code=grpc.StatusCode.NOT_FOUND,
        message='task "a/b" was not found',
        reason="TASK_NOT_FOUND",
        request_id="4f2a",
    )

    assert "4f2a" not in describe(error, "127.0.0.1:50051", timeout_seconds=1)


def test_a_method_of_a_newer_server_is_reported_as_such() -> None:
    error = TaskLogsRpcError(
        code=grpc.StatusCode.UNIMPLEMENTED,
        message="this server does not have this method",
        reason="METHOD_UNKNOWN",
    )

    assert describe(error, "127.0.0.1:50051", timeout_seconds=1) == (
        "unimplemented: this server does not have this method (METHOD_UNKNOWN);"
        " it is older than this command"
    )


async def test_a_missing_server_is_reported_with_its_address_and_how_to_start_one() -> None:
    with socket.socket() as bound:
        # Bound but not listening, so that no other process gets the port.
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        finished = await read(address)

    assert finished == Finished(
        1,
        "",
        f"tasklogs: no server answers at {address} (Connection refused);"
        " start one with `tasklogs serve`, or name another with --server\n",
    )


async def test_a_server_without_grpc_is_reported_in_one_line() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    async with StreamServer(answer) as peer:
        port = peer.port
        finished = await read(f"127.0.0.1:{port}", "--timeout", "5")

    assert finished.code == 1
    assert f"127.0.0.1:{port}" in finished.stderr
    assert finished.stderr.count("\n") == 1


async def test_a_timeout_is_reported(scripted: ScriptedServer) -> None:
    scripted.script.append(Silence())

    finished = await read(scripted.address, "--timeout", "0.2")

    assert finished == Finished(
        1, "", f"tasklogs: no answer from {scripted.address} within 0.2 s (--timeout)\n"
    )


async def test_a_host_that_does_not_resolve_is_reported_in_one_line() -> None:
    finished = await read("nowhere.invalid:50051", "--timeout", "5")

    assert finished.code == 1
    assert "nowhere.invalid:50051" in finished.stderr
    assert finished.stderr.count("\n") == 1


async def test_a_page_that_fails_ends_with_1_after_those_before_it(
    scripted: ScriptedServer,
) -> None:
    from tests.cli.samples import entry, page

    scripted.script += [
        page(entry(0, "hello"), next_page_token="2"),
        Refusal(grpc.StatusCode.OUT_OF_RANGE, "evicted", [reason("CURSOR_EXPIRED")]),
    ]

    finished = await read(scripted.address)

    assert finished.code == 1
    assert "hello" in finished.stdout
    assert finished.stderr == "tasklogs: out of range: evicted (CURSOR_EXPIRED)\n"


async def test_an_argument_that_is_not_utf_8_is_reported_in_one_line(
    scripted: ScriptedServer,
) -> None:
    finished = await run("logs", "local/\udcff", "--server", scripted.address)

    assert finished == Finished(2, "", "tasklogs: not UTF-8 text: 'local/\\udcff'\n")
    assert scripted.requests == []


async def test_on_a_terminal_a_slow_call_shows_what_it_waits_for(
    scripted: ScriptedServer,
) -> None:
    scripted.script.append(Silence())

    finished = await run_on_terminal(
        "logs", "local/demo", "--timeout", "1.5", "--server", scripted.address
    )

    assert f"waiting for {scripted.address}" in finished.stdout
    assert finished.stdout.endswith(f"no answer from {scripted.address} within 1.5 s (--timeout)\n")
