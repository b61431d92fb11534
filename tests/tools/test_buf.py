"""`make buf` and `make release-api`, in a copy of the protos."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).parents[2]
TYPES = "protos/tasklogs/v1/types.proto"
TASKS = "protos/tasklogs/v1/tasks.proto"
LOGS = "protos/tasklogs/v1/task_logs.proto"
AGENTS = "protos/tasklogs/v1/task_agents.proto"
VERSION = "v0.1.0"
FIELD = "\\1  // The content's language.\n  string language = 9;\n\\2"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose API is released as it is. No test changes it."""
    checkout = tmp_path_factory.mktemp("released")
    shutil.copytree(ROOT / "protos/tasklogs", checkout / "protos/tasklogs")
    (checkout / "tools").mkdir()
    for name in ("buf.sh", "googleapis.sh", "release_api.sh"):
        shutil.copy(ROOT / "tools" / name, checkout / "tools")
    shutil.copy(ROOT / "buf.yaml", checkout)
    (checkout / ".venv").symlink_to(Path(sys.executable).parent.parent)
    made = ran(checkout, "release_api.sh", VERSION)
    assert made.returncode == 0, made.stdout + made.stderr
    return checkout


@pytest.fixture
def released(original: Path, tmp_path: Path) -> Path:
    """A copy of that checkout."""
    return shutil.copytree(original, tmp_path / "checkout", symlinks=True)


def ran(checkout: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", f"tools/{script}", *arguments],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def edit(checkout: Path, path: str, pattern: str, replacement: str) -> None:
    """Change one place of a proto."""
    file = checkout / path
    text, count = re.subn(pattern, replacement, file.read_text(), count=1, flags=re.DOTALL)
    assert count == 1, pattern
    file.write_text(text)


def test_the_released_api_has_all_that_a_compiler_needs_and_no_comments(released: Path) -> None:
    files = FileDescriptorSet.FromString(
        (released / f"protos/released/{VERSION}.binpb").read_bytes()
    ).file
    names = {file.name for file in files}

    assert {path.removeprefix("protos/") for path in (TYPES, TASKS, LOGS, AGENTS)} <= names
    for file in files:
        assert set(file.dependency) <= names
        assert not file.source_code_info.location


@pytest.mark.parametrize("where", ["types.proto", "task_logs.proto"])
def test_an_added_field_value_and_case_pass(released: Path, where: str) -> None:
    if where == "types.proto":
        edit(released, TYPES, r"(message TaskLogEntry \{.*?)(  // At most 1 MiB)", FIELD)
        value = "  // An image.\n  TASK_LOG_TYPE_IMAGE = 7;\n"
        edit(released, TYPES, r"(  TASK_LOG_TYPE_NOTICE = 6;\n)", rf"\1{value}")
    else:
        case = "    // A part of an entry.\n    CaughtUp part = 98;\n"
        edit(released, LOGS, r"(oneof event \{\n)", rf"\1{case}")

    made = ran(released, "buf.sh")

    assert made.returncode == 0, made.stdout + made.stderr


# What breaks a peer of the released version: the change, and a word of buf's refusal.
BREAKS: dict[str, tuple[str, str, str, str]] = {
    "a field is removed": (TYPES, r"  string name = 7;\n", "", "was deleted"),
    "a field gets another number": (TYPES, r"string name = 7;", "string name = 9;", "name"),
    "a field gets another type": (TYPES, r"string name = 7;", "bytes name = 7;", "type"),
    "a field gets another name": (TYPES, r"string name = 7;", "string tool = 7;", "tool"),
    "a field gets another JSON name": (
        TYPES,
        r"string name = 7;",
        'string name = 7 [json_name = "toolName"];',
        "json_name",
    ),
    "a field is no longer optional": (TYPES, r"optional int32 id = 1;", "int32 id = 1;", "id"),
    "a field becomes repeated": (TYPES, r"string name = 7;", "repeated string name = 7;", "name"),
    "a value is removed": (
        TYPES,
        r"  TASK_LOG_TYPE_NOTICE = 6;\n",
        "",
        "was deleted",
    ),
    "a value gets another number": (
        TYPES,
        r"TASK_LOG_TYPE_NOTICE = 6;",
        "TASK_LOG_TYPE_NOTICE = 7;",
        "6",
    ),
    "a case leaves its oneof": (
        AGENTS,
        r"  oneof form \{\n(    //[^\n]*\n)(    ContentDelta content = 3;\n)  \}\n",
        r"\1\2",
        "oneof",
    ),
    "a method is removed": (
        TASKS,
        r"  rpc DeleteTask\(.*?\n  \}\n",
        "",
        "was deleted",
    ),
    "a method answers with another message": (
        TASKS,
        r"returns \(ReportBuildResponse\)",
        "returns (Task)",
        "response type",
    ),
    "a stream becomes a single answer": (
        LOGS,
        r"returns \(stream FollowTaskLogsResponse\)",
        "returns (FollowTaskLogsResponse)",
        "stream",
    ),
    "a method is no longer idempotent": (
        TASKS,
        r"    option idempotency_level = IDEMPOTENT;\n",
        "",
        "idempotency",
    ),
    "Go's package changes": (
        TYPES,
        r'option go_package = "[^"]*"',
        'option go_package = "example.org/other;other"',
        "go_package",
    ),
    "Java's package changes": (
        TYPES,
        r'option java_package = "[^"]*"',
        'option java_package = "org.example"',
        "java_package",
    ),
    "Java's files change": (
        TYPES,
        r"option java_multiple_files = true",
        "option java_multiple_files = false",
        "java_multiple_files",
    ),
    "C#'s namespace changes": (
        TYPES,
        r'option csharp_namespace = "[^"]*"',
        'option csharp_namespace = "Other"',
        "csharp_namespace",
    ),
}


@pytest.mark.parametrize("change", BREAKS)
def test_a_change_that_breaks_a_peer_of_that_version_is_refused(
    released: Path, change: str
) -> None:
    path, pattern, replacement, word = BREAKS[change]
    edit(released, path, pattern, replacement)

    refused = breaking(released)

    assert refused.returncode != 0, "buf saw nothing"
    assert word in refused.stdout + refused.stderr


def breaking(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Run the comparison alone: some of the changes break a lint rule first."""
    buf = Path(sys.executable).parent / "buf"
    return subprocess.run(
        [str(buf), "breaking", "protos", "--against", f"protos/released/{VERSION}.binpb"],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_make_buf_refuses_it_too(released: Path) -> None:
    (released / TASKS).unlink()

    refused = ran(released, "buf.sh")

    assert refused.returncode != 0
    assert "was deleted" in refused.stdout


def test_prose_may_change(released: Path) -> None:
    edit(released, TYPES, r"// What the entry is\.", "// The kind of the entry.")

    assert ran(released, "buf.sh").returncode == 0


def test_a_released_api_is_not_written_again(released: Path) -> None:
    edit(released, TYPES, r"  string name = 7;\n", "")
    before = (released / f"protos/released/{VERSION}.binpb").read_bytes()

    again = ran(released, "release_api.sh", VERSION)

    assert again.returncode == 1
    assert "exists" in again.stderr
    assert (released / f"protos/released/{VERSION}.binpb").read_bytes() == before


@pytest.mark.parametrize("version", [(), ("0.1",), ("latest",)])
def test_a_release_needs_a_version(released: Path, version: tuple[str, ...]) -> None:
    assert ran(released, "release_api.sh", *version).returncode == 2


def test_every_released_version_counts_not_only_the_last(released: Path) -> None:
    edit(released, TYPES, r"(message TaskLogEntry \{.*?)(  // At most 1 MiB)", FIELD)
    assert ran(released, "release_api.sh", "v0.2.0").returncode == 0
    shutil.rmtree(released / "protos/tasklogs")
    shutil.copytree(ROOT / "protos/tasklogs", released / "protos/tasklogs")

    refused = ran(released, "buf.sh")

    assert refused.returncode != 0
    assert "language" in refused.stdout + refused.stderr
