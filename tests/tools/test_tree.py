"""The tree of packages in docs/development.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.docs import tree


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("protos/tasklogs/v1", "deploy", "requirements", "tools"):
        (tmp_path / name).mkdir(parents=True)
    write(tmp_path / "clients/python/tasklogs/__init__.py", "The clients.")
    write(tmp_path / "server/tasklogs_server/__init__.py", "The server: two\nlines. A second one.")
    write(tmp_path / "tests/__init__.py", "Tests.")
    write(tmp_path / "bench/__init__.py", "Measurements.")
    write(tmp_path / "demo/__init__.py", "A walk.")
    return tmp_path


def write(path: Path, docstring: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'"""{docstring}"""\n')


def test_a_package_is_named_with_the_first_sentence_of_its_docstring(checkout: Path) -> None:
    lines = tree.packages(checkout).splitlines()

    assert "server/tasklogs_server/      The server: two lines" in lines


def test_a_package_stands_below_the_one_that_holds_it(checkout: Path) -> None:
    write(checkout / "server/tasklogs_server/store/__init__.py", "Every query.")
    write(checkout / "server/tasklogs_server/store/migrations/__init__.py", "The schema.")

    lines = tree.packages(checkout).splitlines()

    at = lines.index("  store/                     Every query")
    assert lines[at + 1] == "    migrations/              The schema"


def test_modules_are_listed_where_a_reader_begins_only(checkout: Path) -> None:
    write(checkout / "server/tasklogs_server/app.py", "Builds everything.")
    write(checkout / "server/tasklogs_server/store/__init__.py", "Every query.")
    write(checkout / "server/tasklogs_server/store/reads.py", "Reads.")
    write(checkout / "tests/test_all.py", "All.")

    text = tree.packages(checkout)

    assert "  app.py                     Builds everything" in text
    assert "reads.py" not in text
    assert "test_all.py" not in text


def test_a_directory_without_an_init_is_no_package(checkout: Path) -> None:
    write(checkout / "tests/data/sample.py", "A sample.")

    assert "data" not in tree.packages(checkout)


def test_long_sentences_wrap_below_their_beginning(checkout: Path) -> None:
    write(checkout / "tests/store/__init__.py", " ".join(["word"] * 40) + ".")

    lines = tree.packages(checkout).splitlines()

    at = next(n for n, line in enumerate(lines) if line.startswith("  store/"))
    assert lines[at + 1].startswith(" " * 29 + "word")
    assert max(map(len, lines)) <= 100


def test_a_directory_that_is_gone_is_an_error(checkout: Path) -> None:
    (checkout / "deploy").rmdir()

    with pytest.raises(FileNotFoundError, match="deploy"):
        tree.packages(checkout)
