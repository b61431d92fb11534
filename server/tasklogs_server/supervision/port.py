"""The port that all workers share, reserved by their supervisor."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tasklogs_server.process.lifecycle import StartupError

_WILDCARDS = ("0.0.0.0", "::")


@contextmanager
def reserved_port(host: str, port: int) -> Iterator[int]:
    """Hold a port as long as the block lasts, and return it; 0 takes a free one.

    Nothing listens on it here. Other processes of this user may listen on it if they ask for a
    shared port (SO_REUSEPORT), as workers do. A process that does not ask, or another supervisor,
    is refused. Raises StartupError if somebody else has the port.
    """
    with ExitStack() as stack:
        try:
            for family, address in _addresses(host.strip("[]")):
                port = stack.enter_context(_bound(family, address, port)).getsockname()[1]
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StartupError(
                    f"cannot listen on {host}:{port}: is another server there?"
                ) from error
            reason = (error.strerror or str(error)).lower()
            raise StartupError(f"cannot listen on {host}:{port}: {reason}") from error
        except UnicodeError as error:  # a label of more than 63 characters
            raise StartupError(f"cannot listen on {host}:{port}: no such host") from error
        yield port


def _addresses(host: str) -> Sequence[tuple[socket.AddressFamily, str]]:
    if host in _WILDCARDS:
        # As gRPC does it: one socket for both, where IPv6 is there.
        return [(socket.AF_INET6, "::") if _has_ipv6() else (socket.AF_INET, "0.0.0.0")]
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    every = [(one[0], str(one[4][0])) for one in found]
    # A machine without IPv6 may still have a name for its loopback address.
    usable = [one for one in every if one[0] is socket.AF_INET or _has_ipv6()]
    return list(dict.fromkeys(usable or every))


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@contextmanager
def _bound(family: socket.AddressFamily, address: str, port: int) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as one:
        if family is socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        # Past connections that the kernel remembers are no obstacle; a server is one.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, port))
        # Only now: a second supervisor, which binds without it, is refused.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield one
