"""The story: a live read, a pause, a snapshot read, a resume and a refused read."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from demo.stage import DemoFailed, Ended, Stage, free_port
from tests.support.fixtures import reaper

TASK = "local/demo"


def tell_all(stage: Stage) -> None:
    server, app = f"127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"

    stage.tell("Start a server, on an embedded Postgres in its own directory.")
    stage.start("server", f"tasklogs serve --listen {server} --data-dir data")
    stage.wait(
        "waiting until the server listens", lambda: f"serving on {server}" in stage.said("server")
    )
    stage.export({"TASKLOGS_SERVER": server})

    stage.tell("Create a task. Its agent's token goes into a file.")
    stage.run("tasklogs task create demo --token-file demo.token")

    stage.tell(
        "Start the workspace: a task app (scripted, with AgentAPI's interface) and the TaskLogs"
        " agent. The orchestrator reports the build."
    )
    start_workspace(stage, app)
    report(stage, 1, "start", "succeeded")
    wait_until_active(stage)

    stage.tell("LIVE: a message is in the next read, even while its answer still grows.")
    stage.run(f"python -m demo.say {app} 'Why is the sky blue?'")
    stage.run(f"tasklogs logs {TASK}")
    stage.wait("waiting until the answer is complete", lambda: has_found(stage))
    stage.run(f"tasklogs logs {TASK} -n 1")
    stage.tell("Programs read the same log with any gRPC client.")
    stage.run(
        f'grpcurl -plaintext -d \'{{"task": "{TASK}", "tail": 1}}\' {server}'
        " tasklogs.v1.TaskLogs/GetTaskLogs"
    )

    stage.tell("PAUSE: the workspace stops, to save money.")
    stop_workspace(stage)
    report(stage, 2, "stop", "succeeded")

    stage.tell("SNAPSHOT: the same entries, now from the store. stderr says so.")
    stage.run(f"tasklogs logs {TASK}")

    stage.tell(
        "RESUME: a new workspace continues the conversation. Until it is ready, reads return the"
        " snapshot."
    )
    report(stage, 3, "start", "running")
    stage.run(f"tasklogs logs {TASK} -n 0")
    start_workspace(stage, app)
    report(stage, 3, "start", "succeeded")
    wait_until_active(stage)
    stage.run(f"python -m demo.say {app} 'And at night?'")
    stage.run(f"tasklogs logs {TASK} -n 3")

    stage.tell(
        "REFUSED: the build failed, so the task is in error and the server refuses the read ..."
    )
    stop_workspace(stage)
    report(stage, 4, "start", "failed")
    stage.run(f"tasklogs logs {TASK}", expect=1)
    stage.tell("... but you can ask for the stored log.")
    stage.run(f"tasklogs logs {TASK} --source snapshot -n 1")


def start_workspace(stage: Stage, app: str) -> None:
    port = app.rpartition(":")[2]
    stage.start(
        "task app", f"python -m tests.support.fakes.task_app --port {port} --state-file state.json"
    )
    stage.start("agent", f"tasklogs agent --token-file demo.token --agentapi-url {app}")


def stop_workspace(stage: Stage) -> None:
    stage.tell("(SIGTERM to the agent, then to the task app, as when a workspace stops.)")
    stage.end("agent")
    stage.end("task app")


def report(stage: Stage, build: int, transition: str, job_status: str) -> None:
    stage.run(
        f"tasklogs task report-build {TASK} --build-number {build} --transition {transition}"
        f" --job-status {job_status}"
    )


def wait_until_active(stage: Stage) -> None:
    def is_active() -> bool:
        task = json.loads(stage.quietly("tasklogs", "task", "get", TASK, "-o", "json") or "{}")
        return bool(task.get("status") == "TASK_STATUS_ACTIVE")

    stage.wait("waiting until the agent reports that it is ready", is_active)


def has_found(stage: Stage) -> bool:
    return "I found." in stage.quietly("tasklogs", "logs", TASK, "-n", "1")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="tasklogs-demo-") as directory:
        try:
            with Stage(Path(directory)) as stage:
                tell_all(stage)
        except Ended as ended:
            return 128 + ended.signal_number
        except (DemoFailed, subprocess.TimeoutExpired) as failure:
            print(f"demo: {failure}", file=sys.stderr)
            return 1
    print("\nThe demo is complete. It left nothing behind.")
    return 0


if __name__ == "__main__":
    reaper.start()
    sys.exit(main())
