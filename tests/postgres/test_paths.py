import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasklogs_server.postgres import EmbeddedPostgres
from tests.postgres.conftest import modes_and_owners
from tests.postgres.supervisor_process import SupervisorProcess
from tests.postgres.test_life import query

AWKWARD_NAMES = [
    "with spaces in it",
    "quote'and\"both",
    "comma,colon:percent%20",
    "ümläut",
    "n" * 150,
]


def temporary_socket_directories() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("pg-socket-*"))


def owners(tree: Path) -> set[int]:
    return {path.stat().st_uid for path in [tree, *tree.rglob("*")]}


@pytest.fixture
def no_socket_directory_left() -> Iterator[None]:
    before = temporary_socket_directories()
    yield
    assert not temporary_socket_directories() - before


@pytest.mark.usefixtures("no_socket_directory_left", "parents_of_tmp_path")
@pytest.mark.parametrize("name", AWKWARD_NAMES)
async def test_an_awkward_or_long_path_works(initialised: Path, tmp_path: Path, name: str) -> None:
    data_dir = shutil.copytree(initialised, tmp_path / name / "data")
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1


async def test_initdb_works_under_an_awkward_path(tmp_path: Path) -> None:
    async with EmbeddedPostgres(tmp_path / "a b 'c' \"d\" %s" / ("n" * 150)) as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1


@pytest.mark.usefixtures("no_socket_directory_left")
async def test_a_killed_start_s_temporary_socket_directory_is_removed_by_the_next(
    initialised: Path, tmp_path: Path
) -> None:
    data_dir = shutil.copytree(initialised, tmp_path / ("n" * 150))
    with SupervisorProcess(str(data_dir)) as supervisor:
        supervisor.kill()
    async with EmbeddedPostgres(data_dir) as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1


async def test_a_0700_home_stays_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    before = modes_and_owners(home)
    async with EmbeddedPostgres(home / ".local" / "share" / "tasklogs") as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1
    assert modes_and_owners(home) == before


async def test_files_stay_owned_by_who_started_it(data_dir: Path) -> None:
    async with EmbeddedPostgres(data_dir):
        assert owners(data_dir) == {os.geteuid()}


async def test_a_relative_path_means_the_directory_of_the_start(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data_dir.parent)
    async with EmbeddedPostgres(Path(data_dir.name)) as postgres:
        monkeypatch.chdir("/")
        assert await query(postgres.dsn(), "SELECT 1") == 1
