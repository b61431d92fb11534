"""Writes the generated parts of the docs. With --check it fails if they are stale.

docs/api.md          the whole page, from the comments in protos/
protos/tasklogs/v1/reasons.json  the reasons of errors, from tasklogs.reasons
clients/go/tasklogs/reasons.go, clients/typescript/src/reasons.ts  the same for Go and TypeScript
docs/agent-stream.md the session in bytes, between `<!-- NAME, by make docs -->` and `<!-- end -->`
docs/operations.md   the tables, between the same comments
docs/development.md  the tree of packages, between the same comments
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.docs import api, reasons, tables, transcript, tree  # noqa: E402 - the path is set above

API = ROOT / "docs/api.md"
REASONS = ROOT / "protos/tasklogs/v1/reasons.json"
GO_REASONS = ROOT / "clients/go/tasklogs/reasons.go"
TS_REASONS = ROOT / "clients/typescript/src/reasons.ts"
IN_PART = (
    ROOT / "docs/agent-stream.md",
    ROOT / "docs/operations.md",
    ROOT / "docs/development.md",
)
_PART = re.compile(r"(<!-- (?P<name>[\w ]+), by make docs -->\n).*?(<!-- end -->)", re.DOTALL)
_PARTS: Mapping[str, Callable[[], str]] = {
    "server settings": tables.server_settings,
    "agent settings": tables.agent_settings,
    "agent log events": tables.agent_log_events,
    "metrics": tables.metrics,
    "server log events": tables.server_log_events,
    "a session in bytes": transcript.text,
    "packages": lambda: tree.packages(ROOT),
}


def pages() -> dict[Path, str]:
    """Return each page with its current text. Raises KeyError for an unknown part."""
    return {
        API: api.reference(ROOT / "protos"),
        REASONS: reasons.data(),
        GO_REASONS: reasons.go_source(),
        TS_REASONS: reasons.ts_source(),
        **{page: _with_parts(page) for page in IN_PART},
    }


def _with_parts(page: Path) -> str:
    return _PART.sub(
        lambda part: f"{part[1]}\n{_PARTS[part['name']]()}\n{part[3]}", page.read_text()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate parts of the docs.")
    parser.add_argument("--check", action="store_true", help="fail if a page is stale")
    arguments = parser.parse_args()
    stale = [
        page for page, text in pages().items() if not page.exists() or page.read_text() != text
    ]
    if arguments.check:
        names = ", ".join(str(page.relative_to(ROOT)) for page in stale)
        if stale:
            print(f"stale docs, run `make docs`: {names}", file=sys.stderr)
        return 1 if stale else 0
    for page, text in pages().items():
        if page in stale:
            page.write_text(text)
            print(f"wrote {page.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
