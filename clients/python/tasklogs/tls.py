"""TLS to a server: whom the client trusts, and how it shows who it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc


class UnusableTls(Exception):
    """A file of the TLS settings does not serve. `str()` says why, in one line."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM, read whenever a connection is set up.

    `ca`: the authorities that may have signed the server's certificate; None: those that come with
    gRPC. `certificate` and `key`: the client's own, where the server wants one; they go together.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) is not (self.key is None):
            raise UnusableTls("a client's certificate and its key go together")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises UnusableTls."""
        return grpc.ssl_channel_credentials(
            _read(self.ca), private_key=_read(self.key), certificate_chain=_read(self.certificate)
        )


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UnusableTls(f"cannot read {path}: {error.strerror}") from None
    if b"-----BEGIN " not in content:
        # gRPC would fail every connection with "Socket closed".
        raise UnusableTls(f"{path} holds no PEM")
    return content
