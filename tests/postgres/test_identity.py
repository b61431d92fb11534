import os
from pathlib import Path

import psutil
import pytest

from tasklogs_server.postgres import EmbeddedPostgres, EmbeddedPostgresError
from tasklogs_server.postgres.candidates import candidates, dedicated_user, stand_in_account
from tasklogs_server.postgres.identity import Direct, UserNamespace
from tests.postgres.conftest import modes_and_owners
from tests.postgres.supervisor_process import SupervisorProcess, postgres_processes
from tests.postgres.test_supervisor import query


def uid_map(pid: int) -> list[int]:
    """Inner uid, outer uid, count."""
    return [int(field) for field in Path(f"/proc/{pid}/uid_map").read_text().split()]


def user_namespace(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/user").readlink()


@pytest.fixture
def writable_by_all(public_tmp_path: Path) -> Path:
    public_tmp_path.chmod(0o777)
    return public_tmp_path


@pytest.fixture
def nobody() -> tuple[int, int]:
    return stand_in_account()


async def test_root_cannot_run_it_directly_and_the_error_says_why(
    as_root: None, data_dir: Path
) -> None:
    postgres = EmbeddedPostgres(data_dir, identity=Direct())
    with pytest.raises(EmbeddedPostgresError, match=r'"root" execution .* not permitted'):
        await postgres.start()


async def test_in_a_user_namespace_it_is_nobody_inside_and_this_user_on_disk(
    data_dir: Path, nobody: tuple[int, int]
) -> None:
    async with EmbeddedPostgres(data_dir, identity=UserNamespace(*nobody)) as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1
        process = psutil.Process(postgres.pid)
        assert process.ppid() == os.getpid()
        assert process.uids().effective == os.geteuid()
        assert uid_map(postgres.pid) == [nobody[0], os.geteuid(), 1]


async def test_another_user_runs_it_from_a_copy_of_the_binaries_owned_by_root(
    as_root: None, public_tmp_path: Path, state_root: Path
) -> None:
    data_dir = public_tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    identity = dedicated_user(data_dir, state_root)
    before = modes_and_owners(data_dir)
    async with EmbeddedPostgres(data_dir, identity=identity) as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1
        assert psutil.Process(postgres.pid).uids() == (identity.id,) * 3
        assert psutil.Process(postgres.pid).ppid() == os.getpid()
        executable = Path(psutil.Process(postgres.pid).exe())
        assert executable.is_relative_to(state_root / "binaries")
        socket = identity.home(data_dir) / "socket"
        assert modes_and_owners(socket)[socket] == ("drwx------", *identity.owner)
    assert modes_and_owners(data_dir) == before
    for path in executable.parents[1].rglob("*"):
        mode, uid, _ = modes_and_owners(path)[path]
        assert (uid, mode[8]) == (0, "-"), f"others may write {path}"


async def test_the_database_of_another_user_is_found_again_with_its_own_identity(
    as_root: None, public_tmp_path: Path, state_root: Path
) -> None:
    data_dir = public_tmp_path / "data"
    identity = dedicated_user(data_dir, state_root)
    async with EmbeddedPostgres(data_dir, identity=identity):
        pass
    assert candidates(data_dir, state_root=state_root) == [identity]
    assert len(candidates(public_tmp_path / "other", state_root=state_root)) == 2


async def test_another_user_is_tried_if_the_namespace_cannot_reach_the_data(
    as_root: None,
    public_tmp_path: Path,
    state_root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A 0700 directory of another user: root in a namespace has no access to it."""
    home = public_tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, 12345, 12345)
    before = modes_and_owners(home)
    monkeypatch.setattr(
        "tasklogs_server.postgres.supervisor.candidates",
        lambda data_dir: candidates(data_dir, state_root=state_root),
    )
    async with EmbeddedPostgres(home / "data") as postgres:
        assert await query(postgres.dsn(), "SELECT 1") == 1
        expected = dedicated_user(home / "data", state_root).id
        assert psutil.Process(postgres.pid).uids().real == expected
    assert modes_and_owners(home) == before


async def test_the_database_of_another_user_is_refused_with_a_reason(
    as_root: None, data_dir: Path
) -> None:
    os.chown(data_dir / "cluster", 12345, 12345)
    with pytest.raises(EmbeddedPostgresError, match="belongs to user 12345"):
        await EmbeddedPostgres(data_dir).start()


async def test_an_ordinary_user_runs_it_directly(data_dir: Path, nobody: tuple[int, int]) -> None:
    with SupervisorProcess(str(data_dir), run_as=UserNamespace(*nobody)) as supervisor:
        assert await query(supervisor.dsn, "SELECT 1") == 1
        assert user_namespace(supervisor.pid) == user_namespace(supervisor.postgres_pid)
    assert not postgres_processes(data_dir / "cluster")


async def test_a_user_without_an_account_can_initialise_it(tmp_path: Path) -> None:
    """Initdb needs a name for its uid. Arbitrary uids are common in containers."""
    nameless = UserNamespace(54321, 54321)
    with SupervisorProcess(str(tmp_path / "data"), run_as=nameless) as supervisor:
        assert await query(supervisor.dsn, "SELECT 1") == 1


async def test_a_state_directory_that_others_can_write_is_refused(
    as_root: None, writable_by_all: Path
) -> None:
    identity = dedicated_user(writable_by_all / "data", writable_by_all)
    with pytest.raises(EmbeddedPostgresError, match="writable by root alone"):
        await EmbeddedPostgres(writable_by_all / "data", identity=identity).start()
