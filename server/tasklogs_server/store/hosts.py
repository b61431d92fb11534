"""The hosts that a database URL names. asyncpg tries them in turn, within one time-out for all."""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

_DEFAULT_PORT = 5432
_ATTRIBUTES = "target_session_attrs"
# `[::1]:5432`, `/run/postgresql` or `db1:5432`.
_HOST = re.compile(r"\[(?P<ip6>[^\]]+)\](:(?P<port6>\d+))?|(?P<name>/.*|[^:]+)(:(?P<port>\d+))?")


class Host(NamedTuple):
    """One address: a name, an IP address or the directory of a unix socket, and a port."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


def several_hosts(dsn: str) -> list[Host]:
    """Return the hosts if the URL or PGHOST names several, else nothing.

    Raises ValueError if the list cannot be parsed. Its text contains no password.
    """
    parts = urlsplit(dsn)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    in_authority = parts.netloc.partition("@")[2] if "@" in parts.netloc else parts.netloc
    listed = in_authority or query.get("host") or os.environ.get("PGHOST", "")
    if "," not in listed:
        return []
    specs = [unquote(spec) if in_authority else spec for spec in listed.split(",")]
    common = "" if in_authority else query.get("port", "")
    ports = (common or os.environ.get("PGPORT") or str(_DEFAULT_PORT)).split(",")
    if len(ports) == 1:
        ports *= len(specs)
    return [
        _host(spec, int(port), fixed=bool(common)) for spec, port in zip(specs, ports, strict=True)
    ]


def says_which_host(dsn: str) -> bool:
    """Whether the URL or the environment says what kind of server to take among the hosts."""
    return _ATTRIBUTES in parse_qs(urlsplit(dsn).query) or "PGTARGETSESSIONATTRS" in os.environ


def _host(spec: str, port: int, *, fixed: bool) -> Host:
    """`fixed`: `port` is not only the default."""
    found = _HOST.fullmatch(spec)
    if found is None:
        raise ValueError("a host of the list cannot be parsed")
    own_port = None if fixed else found["port6"] or found["port"]
    return Host(found["ip6"] or found["name"], int(own_port or port))
