"""The wheel: what is in it, and what works with only what the wheel requires.

That is the client, and type checkers of programs that use it.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tasklogs
from tasklogs import errors, reasons
from tests.deploy.known import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

# Runs a program in which packages cannot be imported that the wheel does not require.
WITHOUT_EXTRAS = """
import json, sys

not_installed = set(json.loads(sys.argv.pop(1)))

class NotInstalled:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in not_installed:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled)
exec(sys.argv.pop(1))
"""
EVERY_MODULE = """
import importlib, pkgutil
import tasklogs

found = [one.name for one in pkgutil.walk_packages(tasklogs.__path__, "tasklogs.")]
for name in found:
    if name != "tasklogs.tracing.opentelemetry":  # for the extra `telemetry`
        importlib.import_module(name)
print(tasklogs.__file__)
print(len(found))
"""
COMMAND = "from tasklogs.cli.main import main; sys.argv[0] = 'tasklogs'; main()"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built as a release is."""
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"),
            *("--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(target)),
            str(ROOT),
        ],
        check=True,
        timeout=100,
    )
    [built] = target.glob("*.whl")
    return zipfile.ZipFile(built)


@pytest.fixture(scope="module")
def installed(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a directory."""
    target = tmp_path_factory.mktemp("site-packages")
    wheel.extractall(target)
    return target


def test_the_wheel_has_all_modules_and_what_they_read(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for package in ("clients/python/tasklogs", "server/tasklogs_server"):
        home = (ROOT / package).parent
        committed = subprocess.run(
            ["git", "ls-files", package], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        expected = {(ROOT / path).relative_to(home).as_posix() for path in committed}
        assert expected <= names
    for path in (
        "tasklogs/v1/descriptors.binpb",
        "tasklogs/py.typed",
        "tasklogs_server/py.typed",
        "tasklogs_server/store/migrations/versions/0001_initial.py",
    ):
        assert path in names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]


def test_the_wheel_has_the_version_and_the_command(wheel: zipfile.ZipFile) -> None:
    info = f"tasklogs-{VERSION}.dist-info"
    assert f"Version: {VERSION}\n" in wheel.read(f"{info}/METADATA").decode()
    assert "tasklogs = tasklogs.cli.main:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert wheel.read(f"{info}/licenses/LICENSE")


def required(name: str, extras: tuple[str, ...] = ("",)) -> Iterator[str]:
    """Yield the distributions that pip installs with `name`, some of them repeatedly."""
    yield canonicalize_name(name)
    for text in importlib.metadata.requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            yield from required(requirement.name, ("", *requirement.extras))


def not_required() -> list[str]:
    """Return the packages here that an installation without extras does not have."""
    needed = set(required("tasklogs"))
    return sorted(
        package
        for package, owners in importlib.metadata.packages_distributions().items()
        if not needed & {canonicalize_name(owner) for owner in owners}
    )


def without_extras(
    installed: Path, program: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    missing = json.dumps(not_required())
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_EXTRAS, missing, program, *arguments],
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        cwd=installed,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_without_extras_the_server_s_packages_are_missing_here() -> None:
    assert {"asyncpg", "alembic", "sqlalchemy", "jwt", "grpc_health"} <= set(not_required())
    assert not {"grpc", "google", "httpx", "typer", "grpc_status"} & set(not_required())


def test_every_module_of_the_client_can_be_imported_without_extras(installed: Path) -> None:
    ran = without_extras(installed, EVERY_MODULE)

    assert ran.returncode == 0, ran.stderr
    origin, count = ran.stdout.split()
    assert Path(origin).is_relative_to(installed)
    assert int(count) > 50


def test_the_command_runs_without_extras(installed: Path) -> None:
    assert without_extras(installed, COMMAND, "--version").stdout == f"tasklogs {VERSION}\n"
    shown = without_extras(installed, COMMAND, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "agent" in shown.stdout


def test_serve_without_extras_says_what_to_install(installed: Path) -> None:
    refused = without_extras(installed, COMMAND, "serve")

    assert refused.returncode != 0
    assert "'.[server]'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_nobody_is_told_to_install_the_other_project_of_this_name() -> None:
    """The index that pip uses has a `tasklogs`, which is not this one."""
    wrong = r"pip3? install[^|;&]*[ '\"]tasklogs([['\" ]|$)"
    found = subprocess.run(
        ["git", "grep", "-nE", wrong, "--", ".", ":!tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (found.returncode, found.stdout) == (1, "")


EXAMPLES = sorted((ROOT / "clients/python/examples").glob("*.py"))
MISUSES = """
import tasklogs
from tasklogs import errors

def misuse(error: errors.TaskNotFound, client: tasklogs.TaskLogsClient) -> None:
    number: int = error.code
    if error.code is errors.StatusCode.MISSPELT:
        error.nothing
    client.get_task("a/b", timeout=5.0)
    client.list_tasks(labels=7)
"""
"""Every line of the function has one mistake."""


def every_name() -> str:
    """Return a program that reads each public name, and each public attribute of each class."""
    lines = ["import tasklogs", "from tasklogs import errors, reasons"]
    for home, prefix in ((tasklogs, "tasklogs"), (errors, "errors"), (reasons, "reasons")):
        for name in home.__all__:
            value = getattr(home, name)
            lines.append(f"print({prefix}.{name})")
            if not inspect.isclass(value) or value is errors.StatusCode:
                continue
            given = "[int]" if value is tasklogs.Page else ""
            lines.append(f"def use_{prefix}_{name}(it: {prefix}.{name}{given}) -> None:")
            lines.append("    print(it)")
            attributes = {*dir(value), *inspect.get_annotations(value)}
            lines += [f"    print(it.{one})" for one in sorted(attributes) if one[0] != "_"]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def python(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel and what it requires, but none of our stub packages."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=100
    )
    [site_packages] = environment.glob("lib/python*/site-packages")
    for name in set(required("tasklogs")) - {"tasklogs"}:
        found = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (site_packages / top).exists():
                (site_packages / top).symlink_to(Path(str(found.locate_file(top))))
    for package in ("tasklogs", "tasklogs_server"):
        (site_packages / package).symlink_to(installed / package)
    assert not list(site_packages.glob("*-stubs"))
    return environment / "bin" / "python"


def check(checker: str, python: Path, program: Path) -> subprocess.CompletedProcess[str]:
    """Check a program strictly, as its author would."""
    arguments = {
        "mypy": ["--strict", "--config-file=", f"--python-executable={python}"],
        "basedpyright": ["--level=error", f"--pythonpath={python}"],
    }[checker]
    strict = {"typeCheckingMode": "strict"}
    (program.parent / "pyrightconfig.json").write_text(json.dumps(strict))
    return subprocess.run(
        [sys.executable, "-m", checker, *arguments, program.name],
        env={"PATH": "/usr/bin:/bin", "HOME": str(program.parent)},
        cwd=program.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


CHECKERS = ("mypy", "basedpyright")


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.name)
def test_an_example_passes_strict_checks_without_stub_packages(
    python: Path, tmp_path: Path, checker: str, example: Path
) -> None:
    checked = check(checker, python, Path(shutil.copy(example, tmp_path)))

    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("checker", CHECKERS)
def test_every_public_name_passes_strict_checks_without_stub_packages(
    python: Path, tmp_path: Path, checker: str
) -> None:
    program = tmp_path / "every_name.py"
    program.write_text(every_name())

    checked = check(checker, python, program)

    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("checker", CHECKERS)
def test_mistakes_are_found_without_stub_packages(
    python: Path, tmp_path: Path, checker: str
) -> None:
    program = tmp_path / "misuses.py"
    program.write_text(MISUSES)

    checked = check(checker, python, program)

    assert checked.returncode == 1
    wrong = MISUSES.splitlines()[5:]
    for number, line in enumerate(wrong, start=6):
        assert f"misuses.py:{number}:" in checked.stdout, line
