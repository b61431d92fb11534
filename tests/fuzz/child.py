"""Runs one target in this process: `python -m tests.fuzz.child NAME ENGINE ...`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import structlog

from tests.fuzz.findings import committed
from tests.fuzz.recorder import Recorder
from tests.fuzz.registry import load
from tests.fuzz.target import Engine, Target
from tests.fuzz.tokens import COMMON

_ROUND = 100
_INPUT_SECONDS = 30
_MEMORY_MIB = 2048
# With tokens and keys decoded in Python, this library distinguishes valid from invalid inputs.
_INSTRUMENTED = ["tasklogs", "tasklogs_server", "jwt"]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("engine", type=Engine)
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args(arguments)
    # Log lines are rendered but not written: they contain untrusted input, too.
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(open(os.devnull, "w")),  # noqa: PTH123, SIM115
    )
    options.directory.mkdir(parents=True, exist_ok=True)
    match options.engine:
        case Engine.COVERAGE:
            _with_coverage(options.name, options.seconds, options.seed, options.directory)
        case Engine.EXAMPLES:
            _with_examples(options.name, options.seconds, options.seed, options.directory)


def _with_coverage(name: str, seconds: int, seed: int, directory: Path) -> None:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=_INSTRUMENTED):
        target = load(name)()
    recorder = Recorder(target, directory)
    corpus, seeds, tokens = directory / "corpus", directory / "seeds", directory / "tokens"
    corpus.mkdir(exist_ok=True)
    _write_seeds(target, seeds)
    tokens.write_text("".join(f'"{_quoted(token)}"\n' for token in (*COMMON, *target.tokens)))
    flags = {
        "max_total_time": seconds,
        "max_len": target.max_bytes,
        "timeout": _INPUT_SECONDS,
        "rss_limit_mb": _MEMORY_MIB,
        "seed": seed,
        "dict": tokens,
        "artifact_prefix": f"{directory / 'findings'}/",
        "print_final_stats": 1,
    }
    command = [f"-{flag}={value}" for flag, value in flags.items()]
    warnings.simplefilter("error")
    atheris.Setup([sys.argv[0], *command, str(corpus), str(seeds)], recorder)
    atheris.Fuzz()  # never returns


def _with_examples(name: str, seconds: int, seed: int, directory: Path) -> None:
    from tests.fuzz.examples import run_examples

    with load(name)() as target:
        recorder = Recorder(target, directory)
        for data in [*target.seeds(), *(path.read_bytes() for path in committed(name))]:
            recorder(data)
        warnings.simplefilter("error")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seed += 1
            run_examples(target, recorder, count=_ROUND, seed=seed, shrink=False)
        recorder.write_figures()


def _write_seeds(target: Target, directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    for number, data in enumerate(target.seeds()):
        (directory / f"seed-{number}").write_bytes(data)
    for path in committed(target.name):
        (directory / f"finding-{path.name}").write_bytes(path.read_bytes())


def _quoted(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


if __name__ == "__main__":
    main(sys.argv[1:])
