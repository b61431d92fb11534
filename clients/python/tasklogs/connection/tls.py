"""TLS to a server: the authorities that the client trusts, and its own certificate."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc


class UnusableTls(Exception):
    """A file of the TLS settings cannot be used. `str()` says why, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files in PEM. They may be renewed at any time: new calls use what they hold then.

    `ca`: the authorities that may have signed the server's certificate; None: those that come with
    gRPC. `certificate` and `key`: the client's own, if the server requires one. Give both or
    neither.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) is not (self.key is None):
            raise UnusableTls("a client certificate needs its key, and a key its certificate")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises UnusableTls."""
        credentials = grpc.ssl_channel_credentials(
            _read(self.ca, _CERTIFICATE),
            private_key=_read(self.key, _KEY),
            certificate_chain=_read(self.certificate, _CERTIFICATE),
        )
        self._check_pair()
        return credentials

    @property
    def has_files(self) -> bool:
        """Whether anything is read from files."""
        return self.ca is not None or self.certificate is not None

    def state(self) -> tuple[object, ...]:
        """Return what changes when a file is written or replaced."""
        return tuple(_state(path) for path in (self.ca, self.certificate, self.key))

    def _check_pair(self) -> None:
        if self.certificate is None or self.key is None:
            return
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
                self.certificate, self.key, password=lambda: b""
            )
        except ssl.SSLError as error:
            # Only this mistake is reported here. gRPC decides about everything else.
            if error.reason == "KEY_VALUES_MISMATCH":
                raise UnusableTls(
                    f"the key in {self.key} does not belong to the certificate in"
                    f" {self.certificate}"
                ) from None
        except OSError as error:
            pair = f"{self.certificate} and {self.key}"
            raise UnusableTls(f"cannot read {pair}: {error.strerror}") from None


_CERTIFICATE, _KEY = "CERTIFICATE", "PRIVATE KEY"


def _state(path: Path | None) -> object:
    if path is None:
        return None
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path | None, kind: str) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UnusableTls(f"cannot read {path}: {error.strerror}") from None
    if f"{kind}-----".encode() not in content:
        # gRPC would fail every connection, with a misleading message.
        raise UnusableTls(f"{path} has no {kind.lower()} in PEM")
    return content
