"""Generates clients/go/tasklogs/v1 from protos/. With --check it fails if they are stale.

The plugins of protoc are built from clients/go/tools.mod, which pins them.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.committed import differences, replace  # noqa: E402 - the path is set above
from tools.proto_paths import proto_paths  # noqa: E402

PROTOS = ROOT / "protos"
MODULE = ROOT / "clients/go"
COMMITTED = MODULE / "tasklogs/v1"
PLUGINS = {
    "protoc-gen-go": "google.golang.org/protobuf/cmd/protoc-gen-go",
    "protoc-gen-go-grpc": "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
}


def generate(target: Path) -> None:
    """Write the stubs into `target`. Raises CalledProcessError if Go or protoc refuses."""
    plugins = []
    for name, package in PLUGINS.items():
        program = target.parent / name
        build = ["go", "build", "-modfile=tools.mod", "-o", str(program), package]
        subprocess.run(build, cwd=MODULE, check=True)
        plugins.append(f"--plugin={name}={program}")
    sources = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc"),
        *proto_paths(PROTOS),
        *plugins,
        f"--go_out={target}",
        "--go_opt=module=tasklogs/clients/go/tasklogs/v1",
        f"--go-grpc_out={target}",
        "--go-grpc_opt=module=tasklogs/clients/go/tasklogs/v1",
        *sources,
    ]
    subprocess.run(command, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate the Go stubs from protos/.")
    parser.add_argument("--check", action="store_true", help="fail if the stubs are stale")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "v1")
        target.mkdir()
        try:
            generate(target)
        except subprocess.CalledProcessError as error:
            return error.returncode
        if not arguments.check:
            replace(target, COMMITTED)
            print(f"wrote {COMMITTED.relative_to(ROOT)}")
            return 0
        stale = differences(target, COMMITTED)
    if stale:
        print(f"stale stubs, run `make go-protos`: {', '.join(stale)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
