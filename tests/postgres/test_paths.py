import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasklogs_server.postgres import EmbeddedPostgres
from tests.postgres.conftest import modes_and_owners
from tests.postgres.supervisor_process import SupervisorProcess
from tests.postgres.test_supervisor import query

AWKWARD_NAMES = [
    "with spaces in it",
    "quote'and\"both",
    "comma,colon:percent%20",
    "ümläut",
    "n" * 150,
]


def owners(tree: Path) -> set[int]:
    return {path.stat().st_uid for path in [tree, *tree.rglob("*")]}


@pytest.fixture
def temporary(public_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory for temporary files, of this test alone; the test fails if any is left."""
    monkeypatch.setenv("TMPDIR", str(public_tmp_path))  # for a supervisor in another process
    monkeypatch.setattr(tempfile, "tempdir", str(public_tmp_path))
    yield public_tmp_path
    assert list(public_tmp_path.iterdir()) == []


@pytest.mark.usefixtures("parents_of_tmp_path")
@pytest.mark.parametrize("name", AWKWARD_NAMES)
async def test_an_awkward_or_long_path_works(
    initialised: Path, tmp_path: Path, temporary: Path, name: str
) -> None:
    data_dir = shutil.copytree(initialised, tmp_path / name / "data")
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1
        assert [one.name[:10] for one in temporary.iterdir()] == ["pg-socket-"]


async def test_initdb_works_under_an_awkward_path(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path / "a b 'c' \"d\" %s" / ("n" * 150)) as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1


async def test_the_next_start_removes_the_temporary_socket_directory_of_a_killed_one(
    initialised: Path, tmp_path: Path, temporary: Path
) -> None:
    data_dir = shutil.copytree(initialised, tmp_path / ("n" * 150))
    with SupervisorProcess(str(data_dir)) as supervisor:
        supervisor.kill()
    assert [one.name[:10] for one in temporary.iterdir()] == ["pg-socket-"]
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1


async def test_a_0700_home_keeps_its_mode(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    before = modes_and_owners(home)
    async with EmbeddedPostgres(home / ".local" / "share" / "tasklogs") as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1
    assert modes_and_owners(home) == before


async def test_files_belong_to_the_user_that_started_it(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir):
        assert owners(data_dir) == {os.geteuid()}


async def test_a_relative_path_is_resolved_when_it_starts(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data_dir.parent)
    async with EmbeddedPostgres(Path(data_dir.name)) as postgres:
        monkeypatch.chdir("/")
        assert await query(postgres.dsn(), "SELECT 1") == 1
