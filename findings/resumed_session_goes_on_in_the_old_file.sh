#!/bin/sh
# Gemini CLI, when it resumes a session, opens a new file and writes what is said into the old one.
#
# Guess: each start of the program has a file of its own. The file that is newest has what was said
#   last, as a list that begins with the history; or else only one file exists, and grows.
# Instead: a start with `--resume` in a later minute makes a second file with a header and the
#   context message, and never writes to it again. The history, in another form than before, and
#   what is said from now on are appended to the first file. A start without `--resume` then deletes
#   both files.
# Versions: @google/gemini-cli 0.61.0.
# Why it matters: a program that follows the newest file sees an empty conversation, and one that
#   reads the files later finds none of a session that was resumed.
# What we do: clients/python/tasklogs/agent/sources/gemini.py reads all files whose names end with
#   the same session as one. What is stored stays.
set -eu
command -v npm >/dev/null || { echo "no npm: this needs Node 20" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$work/home" "$work/work"
cd "$work"
npm install --silent --no-audit --no-fund --ignore-scripts @google/gemini-cli@0.61.0
timeout 400 "${PYTHON:-python3}" - "$work" <<'END'
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WORK = Path(sys.argv[1])
FILES = WORK / "home/.gemini/tmp/work/chats"


class Model(BaseHTTPRequestHandler):
    """Answers everything with one word."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        content = {"role": "model", "parts": [{"text": "Yes."}]}
        answer = {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}]}
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(f"data: {json.dumps(answer)}\n\n".encode())

    def log_message(self, *_):
        pass


def ask(url, prompt, *more):
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(WORK / "home"),
        "GEMINI_API_KEY": "dummy",
        "GOOGLE_GEMINI_BASE_URL": url,
        "NO_PROXY": "127.0.0.1",
    }
    command = [WORK / "node_modules/.bin/gemini", "--model", "gemini-2.5-pro", *more, "-p", prompt]
    subprocess.run(
        command, cwd=WORK / "work", env=environment, check=True, timeout=120,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )


def lines_with(path, prompt):
    """Return how many lines of a file are this message of the user."""
    said = map(json.loads, path.read_text().splitlines())
    return sum(one.get("type") == "user" and prompt in str(one.get("content")) for one in said)


server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
settings = WORK / "home/.gemini"
settings.mkdir()
(settings / "settings.json").write_text(json.dumps({
    "security": {"auth": {"selectedType": "gemini-api-key"}},
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
    "general": {"enableAutoUpdate": False},
}))
(settings / "trustedFolders.json").write_text(json.dumps({str(WORK / "work"): "TRUST_FOLDER"}))

ask(url, "Is it one?")
[first] = FILES.iterdir()
time.sleep(61 - time.time() % 60)  # a name holds the minute
ask(url, "Is it two?", "--resume", "latest")
[second] = set(FILES.iterdir()) - {first}
print("@google/gemini-cli 0.61.0")
print(f"the resumed session's new file has {len(second.read_text().splitlines())} lines")
where = [lines_with(path, "Is it two?") for path in (first, second)]
print(f"what was said after the resume is {where[0]} time in the old file, {where[1]} in the new one")
ask(url, "Is it three?")
left = [path.exists() for path in (first, second)]
print(f"after the next start the files exist: {left}")
as_found = where == [1, 0] and left == [False, False]
print("a resumed session goes on in the old file" if as_found else "CHANGED")
sys.exit(not as_found)
END
