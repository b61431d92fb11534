import os
from pathlib import Path

from tasklogs_server.postgres.log_file import LogFile


def test_a_full_log_is_moved_to_another_file_and_truncated(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", limit_bytes=100)
    inherited = os.dup(log.fileno())
    os.write(inherited, b"x" * 101)
    log.rotate_if_full()
    os.write(inherited, b"after\n")
    assert (tmp_path / "log").read_bytes() == b"after\n"
    assert (tmp_path / "log.1").read_bytes() == b"x" * 101
    os.close(inherited)
    log.close()


def test_a_log_below_its_limit_is_not_moved(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", limit_bytes=100)
    os.write(log.fileno(), b"x" * 100)
    log.rotate_if_full()
    assert not (tmp_path / "log.1").exists()
    log.close()


def test_only_errors_of_this_start_are_reported(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("FATAL:  of last week\n")
    log = LogFile(tmp_path / "log")
    assert log.last_complaint() is None
    os.write(log.fileno(), b"[1] LOG:  fine\n2026 UTC [1] FATAL:  of today\n[1] LOG:  bye\n")
    assert log.last_complaint() == "FATAL:  of today"
    log.close()
