import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fixtures.postgres import FAST, PostgresServer


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cleanly stopped data directory. Tests only copy it."""
    data_dir = tmp_path_factory.mktemp("pg") / "initialised"
    with PostgresServer(data_dir, FAST) as server:
        server.start()
    return data_dir


@pytest.fixture
def data_dir(initialised: Path, tmp_path: Path) -> Path:
    """A copy of an initialised data directory, for this test alone."""
    return shutil.copytree(initialised, tmp_path / "data")


@pytest.fixture
def public_tmp_path() -> Iterator[Path]:
    """A directory that every user may enter, unlike those of pytest."""
    with public_directory() as path:
        yield path


@pytest.fixture(scope="session")
def state_root() -> Iterator[Path]:
    """Replaces the directory under /var/lib. Shared, because the copy of the binaries is slow."""
    with public_directory() as path:
        yield path


@contextlib.contextmanager
def public_directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="tasklogs-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def parents_of_tmp_path(tmp_path: Path) -> Iterator[None]:
    """Fails the test if it changes the mode or owner of a directory above `tmp_path`."""
    before = modes_and_owners(tmp_path)
    yield
    assert modes_and_owners(tmp_path) == before


def modes_and_owners(directory: Path) -> dict[Path, tuple[str, int, int]]:
    found = {}
    for path in (directory, *directory.parents):
        status = path.stat()
        found[path] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid)
    return found


@pytest.fixture
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
