"""`tasklogs token`, and the commands with a server that requires a token, over TLS."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.command import Finished, run, started
from tests.cli.test_serve import address_of
from tests.support.fixtures.certificates import Authority


@dataclass(frozen=True)
class Secured:
    """`tasklogs serve --auth dev` with a certificate."""

    process: asyncio.subprocess.Process
    address: str
    data_dir: Path
    ca: Path

    async def run(self, *command: str, **env: str) -> Finished:
        return await run(*command, "--server", self.address, env=env)


@pytest.fixture
async def secured(data_dir: Path, tmp_path: Path) -> AsyncIterator[Secured]:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    async with started(
        *("serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir), "--auth", "dev"),
        *("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)),
        env={"PATH": os.defpath},
    ) as process:
        yield Secured(process, await address_of(process), data_dir, authority.ca)


async def test_its_token_is_accepted_by_a_development_server(
    secured: Secured, tmp_path: Path
) -> None:
    tls = ("--tls-ca", str(secured.ca))
    minted = await run("token", "--subject", "alice", "--data-dir", str(secured.data_dir))
    assert minted.code == 0, minted
    token = minted.stdout.strip()
    file = tmp_path / "token"
    file.write_text(f"{token}\n")

    created = await secured.run("task", "create", "demo", *tls, TASKLOGS_TOKEN=token)
    assert created.code == 0, created
    assert "created alice/demo" in created.stdout
    read, without, plain, untrusted = await asyncio.gather(
        secured.run("logs", "alice/demo", *tls, "--auth-token-file", str(file)),
        secured.run("task", "list", *tls),
        secured.run("task", "list", TASKLOGS_TOKEN=token),
        secured.run("task", "list", "--tls", TASKLOGS_TOKEN=token),
    )
    assert read.code == 0, read
    for failed, said in (
        (without, "--auth-token-file"),
        (plain, "--tls-ca"),
        (untrusted, "trusted"),
    ):
        assert failed.code == 1
        assert said in failed.stderr
        assert failed.stderr.count("\n") == 1


async def test_without_a_development_server_it_says_what_makes_the_key(tmp_path: Path) -> None:
    finished = await run("token", "--data-dir", str(tmp_path))
    assert finished.code == 1
    assert "--auth dev" in finished.stderr
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize(("subject", "why"), [("", "1 to 255"), ("a\nb", "control characters")])
async def test_a_subject_that_the_server_refuses_is_refused_here(
    tmp_path: Path, subject: str, why: str
) -> None:
    finished = await run("token", "--subject", subject, "--data-dir", str(tmp_path))
    assert finished.code == 2
    assert finished.stdout == ""
    assert "--subject" in finished.stderr
    assert why in finished.stderr


async def test_a_token_sent_in_plain_text_causes_a_warning() -> None:
    finished = await run(
        *("task", "list", "--server", "localhost.invalid:1", "--timeout", "5"),
        env={"TASKLOGS_TOKEN": "x.y.z"},
    )
    assert finished.code == 1
    assert "plain text" in finished.stderr.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "env", "code", "said"),
    [
        (("--auth-token-file", "/nonexistent"), {}, 1, "/nonexistent"),
        (("--auth-token-file", "/dev/null"), {}, 1, "/dev/null"),
        ((), {"TASKLOGS_TOKEN": "x y"}, 2, "TASKLOGS_TOKEN"),
        (("--tls-ca", "/nonexistent"), {}, 1, "/nonexistent"),
        (("--tls-ca", "/dev/null"), {}, 1, "PEM"),
        (("--tls-client-cert", "/dev/null"), {}, 1, "needs its key"),
    ],
)
async def test_impossible_credentials_are_reported_before_any_call(
    arguments: tuple[str, ...], env: dict[str, str], code: int, said: str
) -> None:
    finished = await run("task", "list", *arguments, env=env)
    assert finished.code == code
    assert said in finished.stderr
    assert "unexpected" not in finished.stderr
