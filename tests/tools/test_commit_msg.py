"""The hook that checks a commit's subject."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HOOK = Path(__file__).parents[2] / "tools/hooks/commit-msg"


def checked(message: str, directory: Path) -> subprocess.CompletedProcess[str]:
    file = directory / "COMMIT_EDITMSG"
    file.write_text(message)
    return subprocess.run([HOOK, file], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "message",
    [
        "store: mark losses by one statement\n\nA body may be " + "long " * 40,
        "tests: " + "x" * 65,
        "tests: " + "ü" * 65,
        "docs, tools: write the tree from the code",
        "# A comment of git\n\nagent: send deltas\n",
        "Merge branch 'a-branch-whose-name-is-long' into another-branch-whose-name-is-long-too",
        'Revert "store: mark losses by one statement, which is long enough to be refused"',
        "fixup! store: mark losses",
    ],
)
def test_a_good_subject_passes(message: str, tmp_path: Path) -> None:
    finished = checked(message, tmp_path)

    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("tests: " + "x" * 66, "73 characters, at most 72"),
        ("Mark losses by one statement", "must begin with its place"),
        ("store:mark losses", "must begin with its place"),
        ("", "must begin with its place"),
    ],
)
def test_a_bad_subject_is_refused_with_the_reason(message: str, why: str, tmp_path: Path) -> None:
    finished = checked(message, tmp_path)

    assert finished.returncode == 1
    assert why in finished.stderr
