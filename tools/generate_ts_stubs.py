"""Generates clients/typescript/src/gen from protos/. With --check it fails if they are stale.

The stubs do not import those of google/api: its annotations are left out, which no client needs.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.committed import differences, replace  # noqa: E402 - the path is set above
from tools.proto_paths import proto_paths  # noqa: E402

PROTOS = ROOT / "protos"
PACKAGE = ROOT / "clients/typescript"
COMMITTED = PACKAGE / "src/gen"


def generate(target: Path, work: Path) -> None:
    """Write the stubs into `target`. Raises CalledProcessError if protoc refuses."""
    whole, stripped = work / "whole.binpb", work / "stripped.binpb"
    sources = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    protoc = (sys.executable, "-m", "grpc_tools.protoc")
    describe = ("--include_imports", "--include_source_info", f"--descriptor_set_out={whole}")
    subprocess.run([*protoc, *proto_paths(PROTOS), *describe, *sources], check=True)
    stripped.write_bytes(_without_google_api(whole.read_bytes()))
    plugin = PACKAGE / "node_modules/.bin/protoc-gen-es"
    subprocess.run(
        [
            *protoc,
            f"--descriptor_set_in={stripped}",
            f"--plugin=protoc-gen-es={plugin}",
            "--es_opt=target=ts,import_extension=js",
            f"--es_out={work}",
            *sources,
        ],
        check=True,
    )
    for path in (work / "tasklogs/v1").iterdir():
        path.rename(target / path.name)


def _without_google_api(whole: bytes) -> bytes:
    files = FileDescriptorSet.FromString(whole)
    kept = FileDescriptorSet()
    for file in files.file:
        if file.name.startswith("google/api/"):
            continue
        file.dependency[:] = [one for one in file.dependency if not one.startswith("google/api/")]
        for message in file.message_type:
            for field in message.field:
                field.options.DiscardUnknownFields()
                if not field.options.ByteSize():
                    field.ClearField("options")
        for service in file.service:
            for method in service.method:
                method.options.DiscardUnknownFields()
        kept.file.append(file)
    return kept.SerializeToString()


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate the TypeScript stubs from protos/.")
    parser.add_argument("--check", action="store_true", help="fail if the stubs are stale")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "gen")
        target.mkdir()
        try:
            generate(target, Path(directory))
        except subprocess.CalledProcessError as error:
            return error.returncode
        if not arguments.check:
            replace(target, COMMITTED)
            print(f"wrote {COMMITTED.relative_to(ROOT)}")
            return 0
        stale = differences(target, COMMITTED)
    if stale:
        print(f"stale stubs, run `make ts-protos`: {', '.join(stale)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
