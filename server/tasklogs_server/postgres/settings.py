"""Settings of Postgres as `-c` options, which override every file and ALTER SYSTEM."""

from collections.abc import Mapping
from pathlib import Path

from tasklogs_server.postgres.socket_directory import PORT

DEFAULTS: Mapping[str, str] = {
    "max_connections": "100",
    "shared_buffers": "128MB",
    # After a checkpoint, each changed page goes into the WAL as a whole. Most are half empty.
    "wal_compression": "pglz",
    # Rows that live for seconds must be vacuumed within seconds. With the default of a minute, the
    # table of the tails' growth was 15 times as large as its rows.
    "autovacuum_naptime": "2s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # No content of tables in the log: no statements, no DETAIL ("Failing row contains").
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_line_prefix": "%m [%p] ",
}


def command_line(settings: Mapping[str, str], socket_directory: Path) -> list[str]:
    """Return the options: the defaults, the caller's settings, and what the supervisor needs.

    Later ones win.
    """
    merged = {
        **DEFAULTS,
        **settings,
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": str(socket_directory),
        "unix_socket_permissions": "0700",
        "logging_collector": "off",
        "log_destination": "stderr",
        "external_pid_file": "",
    }
    return [part for name, value in merged.items() for part in ("-c", f"{name}={value}")]
