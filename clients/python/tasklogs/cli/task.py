"""`tasklogs task`: create, list, show and delete tasks; other files have reports and updates."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tasklogs import features
from tasklogs.cli.choices import choice_option
from tasklogs.cli.options import (
    LabelsOption,
    Output,
    OutputOption,
    TaskArgument,
    parse_labels,
)
from tasklogs.cli.render.stdout import write_line
from tasklogs.cli.report import report_agent, report_build
from tasklogs.cli.target import Target, connects
from tasklogs.cli.update import update
from tasklogs.enums import TaskStatus, TaskView

task_app = typer.Typer(
    name="task",
    help="Create, list, update, report on and delete tasks.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        show_default=False,
        help="Write the agent token to FILE instead of printing it. Only you can read FILE.",
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Replace what --token-file has, also the token of another task."),
]


@task_app.command()
@connects
def create(
    target: Target,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            show_default=False,
            help="The task's name: at most 63 lower-case letters, digits, '.', '_' and '-'. It"
            " starts with a letter or a digit.",
        ),
    ],
    owner: Annotated[
        str, typer.Option(metavar="OWNER", show_default="you", help="The owner of the task.")
    ] = "",
    display_name: Annotated[
        str, typer.Option(metavar="TEXT", show_default=False, help="A display name for people.")
    ] = "",
    prompt: Annotated[
        str,
        typer.Option(
            metavar="TEXT", show_default=False, help="The prompt that the agent was given."
        ),
    ] = "",
    standalone: Annotated[
        bool,
        typer.Option(
            "--standalone",
            help="Create a task without builds. Only the agent stream sets its status.",
        ),
    ] = False,
    label: LabelsOption = None,
    request_id: Annotated[
        str,
        typer.Option(
            "--request-id",
            metavar="UUID",
            show_default=False,
            help="Your own id of this creation. If you repeat the command with the same id, it"
            " prints the same task and a fresh token, and the earlier token is invalid.",
        ),
    ] = "",
    token_file: TokenFileOption = None,
    force: ForceOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Create a task.

    Prints the agent token of the task. No other command shows it again. If you lose the token,
    replace it with `rotate-token`. A --token-file that has anything is replaced only with --force.
    """
    from tasklogs.cli.agent_token import hand_over
    from tasklogs.cli.connection import Connection
    from tasklogs.cli.render.task_text import full_name, state
    from tasklogs.cli.render.terminal_text import visible_name
    from tasklogs.v1 import tasks_pb2

    request = tasks_pb2.CreateTaskRequest(
        name=name,
        owner=owner,
        display_name=display_name,
        prompt=prompt,
        standalone=standalone,
        labels=parse_labels(label),
        request_id=request_id,
    )
    with (
        hand_over(token_file, output, force=force, task_id=lambda: None) as deliver,
        Connection(target) as connection,
    ):
        if request.labels:
            connection.require(features.TASK_LABELS, "--label")
        if request.request_id:
            connection.require(features.CREATE_REQUEST_ID, "--request-id")
        response = connection.call(connection.tasks.CreateTask, request)
        task = response.task
        if output is Output.TEXT:
            shown = f"{full_name(task)}, {state(task.status)}, id {visible_name(task.id)}"
            write_line(f"created {shown}")
        deliver(response, response.agent_token)


@task_app.command("list")
@connects
def list_(
    target: Target,
    owner: Annotated[
        str, typer.Option(metavar="OWNER", show_default=False, help="Only tasks of this owner.")
    ] = "",
    status: Annotated[
        str | None, choice_option(TaskStatus, "Only tasks that have this status now.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="KEY[=VALUE]",
            show_default=False,
            help="Only tasks that have this label. Repeat it: tasks that have all of them.",
        ),
    ] = None,
    view: Annotated[
        str, choice_option(TaskView, "With -o json: full shows prompts.", show_default="basic")
    ] = TaskView.BASIC.name,
    output: OutputOption = Output.TEXT,
) -> None:
    """List tasks, newest first.

    On a terminal, a table. Otherwise one tab-separated line per task, without a heading: task,
    status, agent, entries, log as of, created, id. Labels are shown with -o json.
    """
    from tasklogs.cli.connection import Connection
    from tasklogs.cli.render.protobuf_json import print_array
    from tasklogs.cli.render.task_text import print_table, row
    from tasklogs.v1 import tasks_pb2, types_pb2

    request = tasks_pb2.ListTasksRequest(owner=owner, labels=label or ())
    if TaskView[view] is TaskView.FULL and output is Output.JSON:
        request.view = tasks_pb2.TASK_VIEW_FULL
    if status is not None:
        request.status = types_pb2.TaskStatus.ValueType(TaskStatus[status])
    with Connection(target) as connection:
        if request.labels:
            connection.require(features.TASK_LABELS, "--label")
        pages = connection.pages(connection.tasks.ListTasks, request)
        tasks = (task for page in pages for task in page.tasks)
        if output is Output.JSON:
            print_array(tasks, without=() if request.view else ("prompt",))
        elif sys.stdout.isatty():
            print_table(map(row, tasks))
        else:
            for task in tasks:
                write_line("\t".join(row(task)))


@task_app.command()
@connects
def get(
    target: Target,
    task: TaskArgument,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show a task.

    Prints its status, the facts that the status follows from, and the state of its log.
    """
    from tasklogs.cli.connection import Connection
    from tasklogs.cli.render.protobuf_json import print_message
    from tasklogs.cli.render.task_text import describe
    from tasklogs.v1 import tasks_pb2

    with Connection(target) as connection:
        found = connection.call(connection.tasks.GetTask, tasks_pb2.GetTaskRequest(task=task))
    if output is Output.JSON:
        print_message(found)
    else:
        for line in describe(found):
            write_line(line)


@task_app.command()
@connects
def delete(
    target: Target,
    task: TaskArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Succeed if there is no such task.")
    ] = False,
) -> None:
    """Delete a task and its log permanently.

    Asks for confirmation. Without a terminal it requires --yes.
    """
    from tasklogs.cli.connection import Connection
    from tasklogs.cli.render.terminal_text import visible_name
    from tasklogs.v1 import tasks_pb2

    shown = visible_name(task)
    if not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise typer.BadParameter("required without a terminal", param_hint="--yes")
        typer.confirm(f"Delete {shown} and its log permanently?", abort=True, err=True)
    request = tasks_pb2.DeleteTaskRequest(task=task, allow_missing=allow_missing)
    with Connection(target) as connection:
        connection.call(connection.tasks.DeleteTask, request)
    write_line(f"deleted {shown}" + (", if it existed" if allow_missing else ""))


task_app.command()(update)
task_app.command()(report_build)
task_app.command()(report_agent)


@task_app.command()
@connects
def rotate_token(
    target: Target,
    task: TaskArgument,
    token_file: TokenFileOption = None,
    force: ForceOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Replace a task's agent token.

    The old token is invalid at once. An agent that was started with this --token-file continues
    with the new one. Any other agent exits with code 1: start it again. A --token-file that has
    anything but a token of this task is replaced only with --force.
    """
    from tasklogs.cli.agent_token import hand_over
    from tasklogs.cli.connection import Connection
    from tasklogs.v1 import tasks_pb2

    request = tasks_pb2.RotateAgentTokenRequest(task=task)
    with (
        Connection(target) as connection,
        hand_over(
            token_file,
            output,
            force=force,
            task_id=lambda: (
                connection.call(connection.tasks.GetTask, tasks_pb2.GetTaskRequest(task=task)).id
            ),
        ) as deliver,
    ):
        response = connection.call(connection.tasks.RotateAgentToken, request)
        deliver(response, response.agent_token)
