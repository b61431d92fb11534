"""Postgres as a user of its own: what a process of another user reaches of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from signal import Signals

import pytest

from tasklogs_server.postgres import EmbeddedPostgres, EmbeddedPostgresError, free_ids
from tasklogs_server.postgres.binaries import find_binaries
from tasklogs_server.postgres.candidates import candidates, dedicated_user, stand_in_account
from tasklogs_server.postgres.cluster import initialise
from tasklogs_server.postgres.dedicated_user import DedicatedUser
from tasklogs_server.postgres.free_ids import free_id, is_free
from tasklogs_server.postgres.identity import Identity
from tasklogs_server.postgres.log_file import LogFile
from tasklogs_server.postgres.processes import launch
from tests.postgres.conftest import modes_and_owners
from tests.postgres.supervisor_process import until
from tests.postgres.test_supervisor import query

INTRUDER = Path(__file__).with_name("intruder.py")
pytestmark = pytest.mark.usefixtures("as_root")


def intrude(user: tuple[int, int], sockets: Path, directory: Path, pid: int) -> dict[str, str]:
    """Return how each attempt of a process of `user` ended."""
    arguments = [str(user[0]), str(user[1]), str(sockets), str(directory), str(pid)]
    # On stdin: that user may not be able to read the file of the script.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-", *arguments],
        input=INTRUDER.read_text(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def reached(attempts: dict[str, str]) -> set[str]:
    return {name for name, how in attempts.items() if how == "reached"}


def uids_in(tree: Path) -> set[int]:
    return {path.lstat().st_uid for path in (tree, *tree.rglob("*"))}


@pytest.fixture
def identity(public_tmp_path: Path, state_root: Path) -> DedicatedUser:
    return dedicated_user(public_tmp_path / "data", state_root)


async def test_a_process_of_nobody_reaches_neither_the_socket_nor_the_data(
    public_tmp_path: Path, identity: DedicatedUser
) -> None:
    data_dir = public_tmp_path / "data"
    async with EmbeddedPostgres(data_dir, identity=identity) as postgres:
        home = identity.home(data_dir)
        for user in (stand_in_account(), (12345, 12345)):
            attempts = intrude(user, home / "socket", home / "cluster", postgres.pid)
            assert reached(attempts) == set(), attempts
        # The attempts are real ones: they succeed for the user itself.
        own = intrude(identity.owner, home / "socket", home / "cluster", postgres.pid)
        assert reached(own) >= {"connect", "read the data", "list the data", "signal"}, own


async def test_a_process_of_nobody_does_not_reach_a_database_in_a_user_namespace(
    public_tmp_path: Path, state_root: Path
) -> None:
    data_dir = public_tmp_path / "data"
    data_dir.mkdir(mode=0o755)  # the modes of the directories inside must be enough
    namespace = candidates(data_dir, state_root=state_root)[0]
    async with EmbeddedPostgres(data_dir, identity=namespace) as postgres:
        attempts = intrude(
            stand_in_account(), data_dir / "socket", data_dir / "cluster", postgres.pid
        )
        assert reached(attempts) == set(), attempts


async def test_nobody_does_not_reach_a_database_while_initdb_makes_it(
    public_tmp_path: Path, identity: DedicatedUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Initdb runs with the uid of `nobody`, because it needs a name for its uid."""
    attempts: list[dict[str, str]] = []

    async def watched(
        who: Identity, directory: Path, command: list[str], output: int, death_signal: Signals
    ) -> object:
        process = await launch(who, directory, command, output, death_signal)
        assert who.owner == (stand_in_account()[0], identity.id)
        # Its launcher is root at first. Wait until it is initdb.
        until(lambda: any(directory.iterdir()), "initdb works")
        attempts.append(intrude(stand_in_account(), directory, directory, process.pid))
        return process

    monkeypatch.setattr("tasklogs_server.postgres.cluster.launch", watched)
    data_dir = public_tmp_path / "data"
    binaries = identity.prepare(data_dir, find_binaries())
    home = identity.home(data_dir)
    log = LogFile(home / "postgres.log")
    try:
        await initialise(identity, binaries, home, log, sync=False)
    finally:
        log.close()
    assert [reached(one) - {"signal"} for one in attempts] == [set()], attempts
    assert uids_in(home / "cluster") == {identity.id}
    assert modes_and_owners(home)[home] == ("drwx--x---", 0, identity.id)


async def test_a_database_that_belongs_to_nobody_is_taken_over_with_its_data(
    public_tmp_path: Path, state_root: Path
) -> None:
    """An earlier version ran Postgres as `nobody`."""
    data_dir = public_tmp_path / "data"
    before = dedicated_user(data_dir, state_root)
    home = before.home(data_dir)
    async with EmbeddedPostgres(data_dir, identity=before) as postgres:
        await query(postgres.dsn(), "CREATE TABLE kept AS SELECT 42 AS answer")
    outside = public_tmp_path / "outside"
    outside.write_text("of nobody, and not of Postgres")
    (home / "cluster" / "linked").hardlink_to(outside)
    (home / "cluster" / "pointing").symlink_to(public_tmp_path)
    # A backup that was made of hard links, as by `cp -al`.
    copytree(home / "cluster", public_tmp_path / "backup", copy_function=os.link, symlinks=True)
    for path in (home / "cluster", *(home / "cluster").rglob("*")):
        os.chown(path, *stand_in_account(), follow_symlinks=False)
    home.chmod(0o711)

    [found] = candidates(data_dir, state_root=state_root)
    assert isinstance(found, DedicatedUser)
    assert found.id == before.id
    async with EmbeddedPostgres(data_dir, identity=found) as postgres:
        assert await query(postgres.dsn(), "SELECT answer FROM kept") == 42
        attempts = intrude(stand_in_account(), home / "socket", home / "cluster", postgres.pid)
        assert reached(attempts) == set(), attempts
    assert outside.stat().st_uid == stand_in_account()[0]
    [linked] = [one.stat() for one in (home / "cluster").glob("linked")]
    assert (linked.st_nlink, linked.st_uid) == (1, found.id)
    assert public_tmp_path.stat().st_uid == 0


def test_a_take_over_that_was_killed_in_the_middle_is_finished_by_the_next(
    public_tmp_path: Path,
    identity: DedicatedUser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree = public_tmp_path / "cluster"
    (tree / "base" / "1").mkdir(parents=True)
    for number in range(5):
        (tree / "base" / "1" / f"{number}").touch()
    for path in (tree, *tree.rglob("*")):
        os.chown(path, *stand_in_account())
    chown, calls = os.chown, 0

    def killed(*arguments: object, **options: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        chown(*arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr("os.chown", killed)
        with pytest.raises(KeyboardInterrupt):
            identity.take_over(tree)
    assert uids_in(tree) == {identity.id, stand_in_account()[0]}
    identity.take_over(tree)
    assert uids_in(tree) == {identity.id}
    assert [path.name for path in public_tmp_path.iterdir()] == ["cluster"]


def test_files_of_other_users_in_the_tree_stay_theirs(
    public_tmp_path: Path, identity: DedicatedUser
) -> None:
    tree = public_tmp_path / "cluster"
    tree.mkdir()
    (tree / "of-another").touch()
    os.chown(tree / "of-another", 12345, 12345)
    os.chown(tree, *stand_in_account())
    identity.take_over(tree)
    assert uids_in(tree) == {identity.id, 12345}


def test_each_data_directory_has_a_user_of_its_own_and_keeps_it(state_root: Path) -> None:
    ids = {dedicated_user(Path("/data", str(n)), state_root).id for n in range(20)}
    assert len(ids) == 20
    assert ids == {dedicated_user(Path("/data", str(n)), state_root).id for n in range(20)}
    assert all(number is not None and is_free(number) for number in ids)
    assert not is_free(0)
    assert not is_free(stand_in_account()[0])


def _maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "map").write_text(text)
    monkeypatch.setattr(free_ids, "_MAPS", (tmp_path / "map",))


def test_a_container_that_maps_65536_ids_has_a_free_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _maps(tmp_path, monkeypatch, "         0       1000          1\n 1 100000 65535\n")
    number = free_id(b"x")
    assert number is not None
    assert 60_578 <= number < 61_184


async def test_where_no_id_is_free_the_error_says_what_to_do(
    tmp_path: Path, public_tmp_path: Path, state_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _maps(tmp_path, monkeypatch, "         0       1000          1\n")
    identity = dedicated_user(public_tmp_path / "data", state_root)
    assert identity.id is None
    with pytest.raises(EmbeddedPostgresError, match="map 65536 user and group IDs"):
        await EmbeddedPostgres(public_tmp_path / "data", identity=identity).start()
