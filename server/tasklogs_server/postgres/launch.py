"""Becomes Postgres: takes on an identity, asks to die with its parent, and execs the program.

It is a separate script, run as `python -I -S launch.py ...`, because code between fork and exec in
a process with threads (grpc, the event loop) may deadlock. It imports nothing of the project. It
ends in an exec, so Postgres is the supervisor's direct child and has the pid that the supervisor
got from the fork.

Usage: launch.py PARENT_PID DEATH_SIGNAL IDENTITY WORKING_DIRECTORY PROGRAM [ARGUMENT...]

IDENTITY is one of
    self                the ids of this process
    namespace:UID:GID   a new user namespace, in which the ids of this process look like these
    user:UID:GID        these ids

Exits with 126 and one line on stderr when any step fails.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x1000_0000
CANNOT_LAUNCH = 126


def checked(result: int, step: str) -> None:
    """Raise OSError with errno and the name of the step if a C function failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{step}: {os.strerror(number)}")


def enter_user_namespace(libc: ctypes.CDLL, uid: int, gid: int) -> None:
    """Look like `uid` and `gid` inside the namespace. On disk the ids of this process stay."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    checked(libc.unshare(CLONE_NEWUSER), "no user namespace is allowed here")
    # The kernel accepts a gid map from an unprivileged writer only after setgroups is denied.
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {outer_uid} 1"),
        ("gid_map", f"{gid} {outer_gid} 1"),
    ):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, line.encode("ascii"))
        os.close(descriptor)


def become(uid: int, gid: int) -> None:
    """Become `uid` and `gid`, without any other right."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def launch(arguments: list[str]) -> None:
    """Replace this process by Postgres. Does not return. Raises OSError."""
    parent, death_signal, identity, directory, *command = arguments
    libc = ctypes.CDLL(None, use_errno=True)

    # The supervisor's thread may block or ignore signals. Postgres needs those that stop it.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o077)

    kind, *ids = identity.split(":")
    if kind == "namespace":
        enter_user_namespace(libc, int(ids[0]), int(ids[1]))
    elif kind == "user":
        become(int(ids[0]), int(ids[1]))
    os.chdir(directory)

    # Not earlier: a change of credentials clears the death signal. The exec below keeps it.
    checked(libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0), "prctl")
    if os.getppid() != int(parent):
        raise OSError(0, "the supervisor ended before Postgres began")
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        launch(sys.argv[1:])
    except OSError as error:
        file = f" ({error.filename})" if error.filename else ""
        sys.stderr.write(f"launch: {error.strerror}{file}\n")
        sys.exit(CANNOT_LAUNCH)
