"""Which identities can run Postgres on a data directory."""

import os
import pwd
from pathlib import Path

from tasklogs_server.postgres.cluster import cluster_directory, has_cluster
from tasklogs_server.postgres.errors import EmbeddedPostgresError
from tasklogs_server.postgres.identity import (
    STATE_ROOT,
    Direct,
    Identity,
    UnprivilegedUser,
    UserNamespace,
)


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
    outside = UnprivilegedUser(*stand_in_account(), state_root=state_root)
    if has_cluster(inside.home(data_dir)):
        return [inside]
    if has_cluster(outside.home(data_dir)):
        owned = cluster_directory(outside.home(data_dir)).stat()
        return [UnprivilegedUser(owned.st_uid, owned.st_gid, state_root)]
    return [inside, outside]


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
