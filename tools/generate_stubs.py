"""Generates clients/python/tasklogs/v1 from protos/. With --check it fails if they are stale.

In addition to the modules and their types it writes `descriptors.binpb` for server reflection:
Python's own descriptors drop `json_name`.
"""

import argparse
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.committed import differences, replace  # noqa: E402 - the path is set above
from tools.proto_paths import proto_paths  # noqa: E402

PROTOS = ROOT / "protos"
PACKAGE = Path("tasklogs/v1")
COMMITTED = ROOT / "clients/python" / PACKAGE
INIT = '''"""Stubs of the API tasklogs.v1, generated from protos/ by `make protos`.
Nothing written by hand comes in."""
'''


def generate(target: Path) -> None:
    """Write the package's stubs under `target`. Raises CalledProcessError if protoc refuses."""
    (target / PACKAGE).mkdir(parents=True)
    (target / PACKAGE / "__init__.py").write_text(INIT)
    scripts = Path(sysconfig.get_path("scripts"))
    sources = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        *proto_paths(PROTOS),
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_out=quiet:{target}",
        f"--mypy_grpc_out=quiet,only_async:{target}",
        "--include_imports",
        f"--descriptor_set_out={target / PACKAGE / 'descriptors.binpb'}",
        *sources,
    ]
    subprocess.run(command, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate the Python stubs from protos/.")
    parser.add_argument("--check", action="store_true", help="fail if the stubs are stale")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory)
        try:
            generate(target)
        except subprocess.CalledProcessError as error:
            return error.returncode
        if not arguments.check:
            replace(target / PACKAGE, COMMITTED)
            print(f"wrote {COMMITTED.relative_to(ROOT)}")
            return 0
        stale = differences(target / PACKAGE, COMMITTED) if COMMITTED.is_dir() else [str(PACKAGE)]
    if stale:
        print(f"stale stubs, run `make protos`: {', '.join(stale)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
