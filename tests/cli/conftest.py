from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.client.scripted_server import ScriptedServer, scripted_server


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    """A server with the responses of the test's script."""
    async with scripted_server() as server:
        yield server


@pytest.fixture
def data_dir(migrated_data_dir: Path, tmp_path: Path) -> Path:
    """A data directory as an earlier server left it. Running initdb would take a second."""
    return Path(shutil.copytree(migrated_data_dir, tmp_path / "data"))


@pytest.fixture(scope="module")
def answering_server() -> Iterator[str]:
    """The address of a server that answers each unary call with a message without content."""

    class AnswersAll(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")

    served = grpc.server(ThreadPoolExecutor(2), handlers=[AnswersAll()])
    port = served.add_insecure_port("127.0.0.1:0")
    served.start()
    yield f"127.0.0.1:{port}"
    served.stop(None).wait()
