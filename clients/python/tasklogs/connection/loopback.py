"""Whether a host is this machine: decides about plain text, proxies, and what a server may open."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an IP address without a port, is on the loopback interface.

    IPv6 may stand in brackets. Only `localhost` counts among the names: any other, also one that
    begins with 127, is resolved by DNS.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return bare.lower().removesuffix(".") == "localhost"
    # Before Python 3.13 an IPv4 address that is mapped into IPv6 is never loopback.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def is_loopback_address(address: str) -> bool:
    """The same for HOST:PORT."""
    return is_loopback(address.rpartition(":")[0])
