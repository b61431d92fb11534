"""Importing and reading where Linux' own modules, calls and signals are missing, as on Windows.

This shows what the package itself uses. That gRPC runs on Windows and macOS is for grpcio to show.
"""

from __future__ import annotations

import asyncio
import sys

import pytest

# Takes away from the package, before it is imported, what only Unix or only Linux has.
WITHOUT_UNIX = """
import asyncio, builtins, importlib, os, pkgutil, select, signal, socket, sys, warnings
import grpc, grpc.aio, grpc_status.rpc_status, httpx, pydantic_settings, rich, structlog, typer

warnings.filterwarnings("error", category=EncodingWarning, module=r"tasklogs($|\\.)")
if not sys.flags.warn_default_encoding:
    raise SystemExit("needs -X warn_default_encoding")

MODULES = {
    "crypt", "fcntl", "grp", "nis", "ossaudiodev", "posix", "pty", "pwd", "readline", "resource",
    "spwd", "syslog", "termios", "tty", "uvloop",
}
real_import = builtins.__import__

def guarded_import(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if name.partition(".")[0] in MODULES and importer.partition(".")[0] == "tasklogs":
        raise ModuleNotFoundError(f"No module named {name!r} (imported by {importer})", name=name)
    return real_import(name, globals, locals, fromlist, level)

builtins.__import__ = guarded_import

UNIX = {
    os: '''chown chroot eventfd fchmod fchown fork forkpty getegid geteuid getgid getgroups
        getloadavg getpgid getpgrp getresuid getsid getuid initgroups killpg lchown major
        memfd_create minor mkfifo mknod nice O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK
        openpty pidfd_open pipe2 posix_fadvise posix_spawn pread preadv pwrite pwritev
        register_at_fork sched_getaffinity sched_yield sendfile setegid seteuid setgid setgroups
        setpgid setpriority setsid setuid statvfs sync sysconf ttyname uname wait3 wait4
        waitid WNOHANG''',
    signal: '''ITIMER_REAL SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 SIGUSR2 SIGWINCH
        alarm getitimer pause pthread_kill pthread_sigmask setitimer sigpending sigwait''',
    select: "epoll poll",
    socket: "SO_REUSEPORT",
}
for module, names in UNIX.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)

def unsupported(*arguments):
    raise NotImplementedError  # as Windows' ProactorEventLoop does

for name in ("add_reader", "remove_reader", "add_writer", "remove_writer"):
    setattr(asyncio.SelectorEventLoop, name, unsupported)
for name in ("add_signal_handler", "remove_signal_handler"):
    setattr(asyncio.SelectorEventLoop, name, unsupported)
"""
IMPORT_ALL = """
import tasklogs
found = [one.name for one in pkgutil.walk_packages(tasklogs.__path__, "tasklogs.")]
for name in found:
    if name != "tasklogs.tracing.opentelemetry":  # for the extra `telemetry`
        importlib.import_module(name)
for name in tasklogs.__all__:
    getattr(tasklogs, name)
print(len(found))
"""
READ = """
from tasklogs import CaughtUp, EntriesChanged, SyncTaskLogsClient, TaskLogsClient
address = sys.argv[1]

async def read():
    async with TaskLogsClient(address) as client:
        log = await client.get("local/demo")
        print([entry.content for entry in await log.all()])
        async for event in client.follow("local/demo"):
            if isinstance(event, EntriesChanged):
                print([entry.content for entry in event.entries])
            if isinstance(event, CaughtUp):
                break

asyncio.run(read())
with SyncTaskLogsClient(address) as client:
    print([entry.content for entry in client.get("local/demo").entries()])
    for event in client.follow("local/demo"):
        if isinstance(event, CaughtUp):
            break
    print([task.full_name for task in client.list_tasks()])
"""
COMMAND = """
from tasklogs.cli.main import main
sys.argv = ["tasklogs", "logs", "local/demo", "--server", sys.argv[1]]
main()
"""


async def run(program: str, *arguments: str) -> str:
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "warn_default_encoding", "-c", WITHOUT_UNIX + program, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(100):
            said, complaints = await running.communicate()
    finally:
        if running.returncode is None:
            running.kill()
            await running.communicate()
    assert running.returncode == 0, complaints.decode()
    return said.decode()


async def test_every_module_can_be_imported() -> None:
    assert int(await run(IMPORT_ALL)) > 100


@pytest.mark.parametrize("name", ["fcntl", "pwd", "termios", "uvloop"])
async def test_the_package_itself_could_not_import_such_a_module(name: str) -> None:
    """Shows that the test above can fail."""
    program = f"""
module = type(sys)("tasklogs.probe")
try:
    exec("import {name}", vars(module))
except ModuleNotFoundError:
    print("missing")
"""
    assert await run(program) == "missing\n"


async def test_reads_and_follows_work(address: str) -> None:
    entries = "['What is 6 times 7?', 'It is 42.']"

    assert await run(READ, address) == f"{entries}\n{entries}\n{entries}\n['local/demo']\n"


async def test_the_command_prints_a_log(address: str) -> None:
    assert "It is 42." in await run(COMMAND, address)
