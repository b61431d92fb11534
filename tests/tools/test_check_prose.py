"""The check of the text that people read."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tools import check_prose
from tools.check_prose import Finding, findings

LONG = " ".join(["word"] * 21)  # 104 columns


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def lines(found: list[Finding]) -> list[int]:
    return [one.line for one in found]


@pytest.mark.parametrize(
    "text",
    [
        "It is sent to whoever asks.",
        "It waits for ever.",
        "Subjects that may all.",
        "What strangers send.",
        "Imports between the rooms.",
        "Only the store's room knows.",
        "This room knows files.",
        "Rather no more is taken.",
        "gRPC's words are of no help.",
        "No import, save the command `serve`.",
        "It takes no answer.",
    ],
)
def test_a_retired_phrase_is_found(tmp_path: Path, text: str) -> None:
    page = write(tmp_path / "page.md", text)

    assert lines(findings(page)) == [1]


@pytest.mark.parametrize(
    "text",
    [
        "There is room for ten more.",
        "It makes room in the log.",
        "The room for one entry is bounded.",
        "Headroom, a classroom, a chatroom.",
        "The strangest of all forever loops.",
        "They may allow it.",
        "It saves the log; save the file.",
        "The class `Rooms` of `whoever`.",
        "It is a help to others.",
    ],
)
def test_ordinary_english_is_left_alone(tmp_path: Path, text: str) -> None:
    page = write(tmp_path / "page.md", text)

    assert findings(page) == []


def test_a_finding_says_what_to_write_instead(tmp_path: Path) -> None:
    page = write(tmp_path / "page.md", "A line.\n\nIt waits\nfor\never.\n")

    [found] = findings(page)

    assert found.line == 4
    assert found.what == '"for ever": write instead: indefinitely, without a limit'


def test_prose_is_wrapped_but_tables_code_and_links_may_be_longer(tmp_path: Path) -> None:
    page = write(
        tmp_path / "page.md",
        f"{LONG}\n\n| {LONG} |\n\n```sh\n{LONG}\n```\n\n[short]({'x' * 100})\n\n{LONG}\n",
    )

    assert findings(page) == [
        Finding(1, "104 columns: wrap at 100"),
        Finding(11, "104 columns: wrap at 100"),
    ]


def test_python_is_read_where_people_read_it(tmp_path: Path) -> None:
    module = write(
        tmp_path / "module.py",
        '''\
        """What strangers send."""

        # It waits for
        # ever.
        rooms = {"whoever": 1}
        text = f"whoever asks {rooms}"

        def test_whoever_asks_is_answered() -> None: ...

        def whoever_asks() -> None: ...
        ''',
    )

    assert lines(findings(module)) == [1, 3, 6, 8]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("api.proto", "message Rooms {\n  string rooms = 1;\n  // Strangers.\n}\n"),
        ("values.yaml", "rooms: 1\n\nstrangers: 2 # whoever\n"),
        ("run.sh", "rooms=1\necho\n# for ever\n"),
    ],
)
def test_of_other_files_the_comments_are_read(tmp_path: Path, name: str, text: str) -> None:
    file = write(tmp_path / name, text)

    assert lines(findings(file)) == [3]


def test_a_wide_comment_is_found(tmp_path: Path) -> None:
    proto = write(tmp_path / "api.proto", f"// Short.\n  // {LONG}\n")

    assert lines(findings(proto)) == [2]


def test_names_of_classes_are_checked_when_asked(tmp_path: Path) -> None:
    module = write(tmp_path / "module.py", "class Presence:\n    pass\n")

    assert findings(module) == []
    assert findings(module, names=True) == [
        Finding(1, "class Presence: name it after the circuit breaker")
    ]


def test_generated_stubs_and_the_list_itself_are_not_checked(tmp_path: Path) -> None:
    kept = write(tmp_path / "server/tasklogs_server/app.py", "")
    write(tmp_path / "clients/python/tasklogs/v1/task_pb2.py", "")
    write(tmp_path / "tools/check_prose.py", "")

    assert check_prose.checked_files(tmp_path) == [kept]


def test_it_fails_where_something_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write(tmp_path / "good.md", "Good.\n")
    bad = write(tmp_path / "bad.md", "Strangers.\n")

    assert check_prose.main([str(good)]) == 0
    assert check_prose.main([str(good), str(bad)]) == 1
    assert capsys.readouterr().out.startswith(f'{bad}:1: "Strangers"')
