"""Which identities can run Postgres on a data directory."""

import os
import pwd
from pathlib import Path

from tasklogs_server.postgres.cluster import cluster_directory, has_cluster
from tasklogs_server.postgres.dedicated_user import DedicatedUser
from tasklogs_server.postgres.errors import EmbeddedPostgresError
from tasklogs_server.postgres.free_ids import free_id, is_free
from tasklogs_server.postgres.identity import STATE_ROOT, Direct, Identity, UserNamespace


def candidates(data_dir: Path, *, state_root: Path = STATE_ROOT) -> list[Identity]:
    """Return the identities to try, the best first, at least one.

    If a database exists, its own identity is the only one: another would create an empty database
    in another place without a word. Raises EmbeddedPostgresError if it belongs to another user.
    """
    if has_cluster(data_dir):
        owner = cluster_directory(data_dir).stat().st_uid
        if owner != os.geteuid():
            raise EmbeddedPostgresError(
                f"the database in {data_dir} belongs to user {_name(owner)}; "
                "start as that user, or choose another data directory"
            )
    if os.geteuid() != 0:
        if _has_account(os.geteuid()):
            return [Direct()]
        return [UserNamespace(*stand_in_account())]

    inside = UserNamespace(*stand_in_account())
    if has_cluster(inside.home(data_dir)):
        return [inside]
    outside = dedicated_user(data_dir, state_root)
    return [outside] if has_cluster(outside.home(data_dir)) else [inside, outside]


def dedicated_user(data_dir: Path, state_root: Path = STATE_ROOT) -> DedicatedUser:
    """Return the user that runs Postgres for `data_dir` and nothing else.

    It is the owner of the database, if that is a number that no account has. Otherwise (an earlier
    version of the server ran Postgres as `nobody`) another one takes the database over.
    """
    account, _ = stand_in_account()
    home = DedicatedUser(None, account, state_root).home(data_dir)
    owner = cluster_directory(home).stat().st_uid if has_cluster(home) else 0
    return DedicatedUser(
        owner if is_free(owner) else free_id(os.fsencode(home)), account, state_root
    )


def stand_in_account() -> tuple[int, int]:
    """Return uid and gid of an account without rights: `nobody`, or any but root.

    Raises EmbeddedPostgresError if there is none.
    """
    accounts = [account for account in pwd.getpwall() if account.pw_uid != 0]
    accounts.sort(key=lambda account: account.pw_name != "nobody")
    if not accounts:
        raise EmbeddedPostgresError(
            "Postgres refuses to run as root, and this machine has no other account; "
            "add one, or use your own Postgres with --database-url"
        )
    return accounts[0].pw_uid, accounts[0].pw_gid


def _has_account(uid: int) -> bool:
    return _name(uid) != str(uid)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
