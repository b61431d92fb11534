"""TLS to a server: whom the client trusts, and how it shows who it is."""

from __future__ import annotations

import ssl
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
        credentials = grpc.ssl_channel_credentials(
            _read(self.ca, _CERTIFICATE),
            private_key=_read(self.key, _KEY),
            certificate_chain=_read(self.certificate, _CERTIFICATE),
        )
        self._look_at_the_pair()
        return credentials

    def _look_at_the_pair(self) -> None:
        if self.certificate is None or self.key is None:
            return
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
                self.certificate, self.key, password=lambda: b""
            )
        except ssl.SSLError as error:
            # Of all else that it finds gRPC is the judge.
            if error.reason == "KEY_VALUES_MISMATCH":
                raise UnusableTls(
                    f"the key in {self.key} is not that of the certificate in {self.certificate}"
                ) from None
        except OSError as error:
            pair = f"{self.certificate} and {self.key}"
            raise UnusableTls(f"cannot read {pair}: {error.strerror}") from None


_CERTIFICATE, _KEY = "CERTIFICATE", "PRIVATE KEY"


def _read(path: Path | None, kind: str) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UnusableTls(f"cannot read {path}: {error.strerror}") from None
    if f"{kind}-----".encode() not in content:
        # gRPC would fail every connection, in words that lead elsewhere.
        raise UnusableTls(f"{path} holds no {kind.lower()} in PEM")
    return content
