"""docs/api.md: the commands that it shows, run as they stand there."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
import sysconfig
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tests.compat.agent_peer import conversation
from tests.support.fixtures.agent_stream import ScriptedAgent
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.server import Server

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/api.md").read_text()
BIN = Path(sys.executable).parent
WRITTEN_ADDRESS = "localhost:50051"


def commands(program: str) -> list[str]:
    """Return the commands of the page's shell blocks that begin with `program`."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith(program)]


async def output_of(*command: str, whole: bool = True) -> str:
    """Run a command. Return its output, or only what it has written by its first message."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            if not whole:
                return (await process.stdout.readuntil(b"\n}\n")).decode()
            written, error = await process.communicate()
        assert process.returncode == 0, error.decode()
        return written.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_the_calls_with_grpcurl_are_answered(server: Server) -> None:
    shown: dict[str, str] = {}
    for line in commands("grpcurl"):
        words = [str(BIN / "grpcurl"), *shlex.split(line)[1:]]
        words = [server.address if word == WRITTEN_ADDRESS else word for word in words]
        method = words[-1]
        shown[method] = await output_of(*words, whole=not method.endswith("FollowTaskLogs"))
        if method.endswith("CreateTask"):
            token = json.loads(shown[method])["agentToken"]
            async with ScriptedAgent.connect(server, token) as agent:
                await agent.append(conversation("hello", "world").entries, open_epoch=True)
                await agent.acked()
                await agent.goodbye()

    assert "tasklogs.v1.TaskLogs" in shown["list"].split()
    assert json.loads(shown["tasklogs.v1.TaskLogs/GetServerInfo"])["version"]
    logs = json.loads(shown["tasklogs.v1.TaskLogs/GetTaskLogs"])["logs"]
    assert [entry["content"] for entry in logs] == ["hello", "world"]
    assert json.loads(shown["tasklogs.v1.TaskLogs/FollowTaskLogs"])["status"]


async def test_the_command_for_pythons_stubs_works(tmp_path: Path) -> None:
    [command] = commands("python -m grpc_tools.protoc")
    words = shlex.split(command.replace("$site", sysconfig.get_path("purelib")))
    words[0] = sys.executable
    words = [word.replace("=out", f"={tmp_path}") for word in words]
    [pattern] = [word for word in words if "*" in word]
    sources = [str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)]
    words = [word for word in words if word != pattern] + sources
    assert len(sources) == 4
    await output_of(*words)
    assert len(list(tmp_path.rglob("*_pb2_grpc.py"))) == 4


@pytest.mark.parametrize("name", ["annotations", "http", "field_behavior"])
def test_the_page_names_every_import_from_google_api(name: str) -> None:
    committed = (ROOT / "clients/python/tasklogs/v1/descriptors.binpb").read_bytes()
    files = FileDescriptorSet.FromString(committed).file
    imported = {file.name for file in files if file.name.startswith("google/api/")}
    assert f"google/api/{name}.proto" in imported
    assert len(imported) == 3
    assert f"google/api/{name}.proto" in PAGE
