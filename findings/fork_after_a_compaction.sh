#!/bin/sh
# Claude Code, when it forks a session that was compacted, writes an old answer after the summary.
#
# Guess: a fork's file begins with the lines of the session, in their order, with the same uuids:
#   the whole conversation, the boundary of the compaction, its summary, and then what is new.
# Instead: it begins with the boundary and the summary. Of what was said before, only the answer
#   that the compaction kept follows, after the summary; in the session's own file it stands before
#   both. The prompts and the other answers are in the session's file alone.
# Versions: @anthropic-ai/claude-code 2.1.328.
# Why it matters: a program that takes a fork for a copy, or finds its place by the order of lines
#   that it knows, gets a conversation in another order or skips half of it.
# What we do: clients/python/tasklogs/agent/sources/claude_code.py takes each file as an epoch of
#   its own, in the file's order; docs/agents.md says how a fork begins.
set -eu
command -v npm >/dev/null || { echo "no npm" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$work/home" "$work/work"
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts @anthropic-ai/claude-code@2.1.328
timeout 300 "${PYTHON:-python3}" - "$work" <<'END'
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WORK = Path(sys.argv[1])
[BINARY] = (WORK / "node_modules/@anthropic-ai").glob("claude-code-linux-*/claude")
USAGE = {"input_tokens": 10, "output_tokens": 10}


class Model(BaseHTTPRequestHandler):
    """Answers everything with a few words, streamed."""

    answers = 0

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Model.answers += 1
        text = f"Answer {Model.answers}."
        message = {"id": f"msg_{Model.answers}", "type": "message", "role": "assistant"}
        message |= {"model": body["model"], "content": [], "stop_reason": None, "usage": USAGE}
        block = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": text}
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for kind, fields in (
            ("message_start", {"message": message}),
            ("content_block_start", {"index": 0, "content_block": block}),
            ("content_block_delta", {"index": 0, "delta": delta}),
            ("content_block_stop", {"index": 0}),
            ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": USAGE}),
            ("message_stop", {}),
        ):
            data = json.dumps({"type": kind, **fields})
            self.wfile.write(f"event: {kind}\ndata: {data}\n\n".encode())

    def log_message(self, *_):
        pass


def ask(url, prompt, *more):
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(WORK / "home"),
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "dummy",
        "NO_PROXY": "127.0.0.1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
    }
    subprocess.run(
        [BINARY, "-p", *more, prompt], cwd=WORK / "work", env=environment, check=True,
        timeout=120, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )


def said(path):
    """Return what a file says, in its order."""
    lines = []
    for line in map(json.loads, path.read_text().splitlines()):
        content = line.get("message", {}).get("content")
        text = content if isinstance(content, str) else "".join(
            block.get("text", "") for block in content or []
        )
        if line.get("subtype") == "compact_boundary":
            lines.append("boundary")
        elif line.get("isCompactSummary"):
            lines.append("summary")
        elif line["type"] in ("user", "assistant") and text and not text.startswith("<"):
            lines.append(text)
    return lines


server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
ask(url, "One?")
ask(url, "Two?", "--continue")
ask(url, "/compact", "--continue")
files = WORK / "home/.claude/projects"
[session] = files.glob("*/*.jsonl")
ask(url, "Three?", "--continue", "--fork-session")
[fork] = set(files.glob("*/*.jsonl")) - {session}
old, new = said(session), said(fork)
print("@anthropic-ai/claude-code 2.1.328")
print(f"the session's file: {old}")
print(f"the fork's file: {new}")
kept = old[old.index("boundary") - 1]
as_found = (
    new[:3] == ["boundary", "summary", kept]
    and "One?" in old and "One?" not in new and "Three?" in new
)
print("a fork begins with the summary, and an old answer follows" if as_found else "CHANGED")
sys.exit(not as_found)
END
