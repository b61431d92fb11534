"""What a run keeps of inputs that a target fails on, and what the command prints about them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import pytest

from tests.fuzz.__main__ import main
from tests.fuzz.campaign import fuzz
from tests.fuzz.examples import run_examples
from tests.fuzz.recorder import Recorder
from tests.fuzz.target import Engine, Target


class Broken(Target):
    """Fails at one place for `x` followed by `y`, and at another place for long inputs."""

    name: ClassVar[str] = "broken"
    max_bytes: ClassVar[int] = 64

    def seeds(self) -> Iterable[bytes]:
        yield b"an x and a z"

    def run(self, data: bytes) -> None:
        if b"y" in data.partition(b"x")[2]:
            raise ValueError(data)
        if len(data) > 60:
            raise IndexError(len(data))


def _kept(directory: Path) -> list[bytes]:
    files = (directory / "findings").iterdir()
    return sorted(path.read_bytes() for path in files if path.suffix != ".txt")


def test_a_finding_is_shortened_and_kept_once_for_each_place(tmp_path: Path) -> None:
    recorder = Recorder(Broken(), tmp_path)
    for data in [b"fine", b"one x two y three", b"another xy", b"z" * 64, b"fine"]:
        recorder(data)
    assert _kept(tmp_path) == [b"xy", b"z" * 61]


def test_the_exception_is_stored_beside_a_finding(tmp_path: Path) -> None:
    Recorder(Broken(), tmp_path)(b"xy")
    [told] = (tmp_path / "findings").glob("*.txt")
    assert "b'xy'" in told.read_text()
    assert "in run" in told.read_text()


def test_every_input_is_counted(tmp_path: Path) -> None:
    recorder = Recorder(Broken(), tmp_path)
    for _ in range(3):
        recorder(b"xy")
    recorder.write_figures()
    assert json.loads((tmp_path / "figures.json").read_text())["inputs"] == 3


def test_examples_find_a_failure_near_a_seed() -> None:
    with pytest.raises((ValueError, IndexError)):
        run_examples(Broken(), Broken().run, count=2000, seed=1, shrink=False)


def test_examples_are_the_same_for_the_same_seed() -> None:
    runs: list[list[bytes]] = [[], []]
    for run in runs:
        run_examples(_Fine(), run.append, count=50, seed=7, shrink=False)
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 10


class _Fine(Broken):
    def run(self, data: bytes) -> None:
        pass


async def test_a_target_that_cannot_start_is_a_failure(tmp_path: Path) -> None:
    outcome = await fuzz("no such", Engine.EXAMPLES, seconds=1, seed=1, directory=tmp_path)
    assert outcome.trouble is not None
    assert not outcome.is_good


def test_the_command_runs_a_target_in_a_process_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = ["--engine", "hypothesis", "--seconds", "1", "--directory", str(tmp_path)]
    assert main(["cursors", *engine]) == 0
    [row] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("cursors")]
    assert int(row.split()[2]) > 0


def test_an_unknown_target_is_bad_usage() -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["nothing"])


def test_without_atheris_the_command_says_so_and_runs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert main(["cursors"]) == 2
    assert "atheris is not installed" in capsys.readouterr().err
