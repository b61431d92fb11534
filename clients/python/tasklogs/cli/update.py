"""`tasklogs task update`: change the display name and the labels of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tasklogs.cli.failure import CommandFailed
from tasklogs.cli.options import (
    LabelsOption,
    Output,
    OutputOption,
    TaskArgument,
    parse_labels,
)
from tasklogs.cli.render.stdout import write_line
from tasklogs.cli.target import Target, connects

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from tasklogs.cli.connection import Connection
    from tasklogs.v1 import tasks_pb2


@connects
def update(
    target: Target,
    task: TaskArgument,
    display_name: Annotated[
        str | None,
        typer.Option(metavar="TEXT", show_default=False, help="The new display name. Empty: none."),
    ] = None,
    label: LabelsOption = None,
    remove_label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            show_default=False,
            help="Remove the label of this key, if the task has it. Repeat it for more labels.",
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Change the display name and the labels of a task.

    What is left out does not change: --label adds one label or replaces its value. If another
    update comes in between, the command reads the task again and repeats its own update once.
    """
    from tasklogs.cli.connection import Connection
    from tasklogs.cli.render.protobuf_json import print_message
    from tasklogs.cli.render.task_text import describe

    labels, removed = parse_labels(label), remove_label or ()
    if display_name is None and not labels and not removed:
        hint = "--display-name / --label / --remove-label"
        raise typer.BadParameter("give at least one", param_hint=hint)
    both = sorted(labels.keys() & removed)
    if both:
        raise typer.BadParameter(
            f"{both[0]!r} is given as --label too", param_hint="--remove-label"
        )
    with Connection(target) as connection:
        updated = _update(connection, task, display_name, labels, removed)
    if output is Output.JSON:
        print_message(updated)
    else:
        for line in describe(updated):
            write_line(line)


def _update(
    connection: Connection,
    task: str,
    display_name: str | None,
    labels: Mapping[str, str],
    removed: Collection[str],
) -> tasks_pb2.Task:
    from tasklogs.errors import EtagMismatch
    from tasklogs.v1 import tasks_pb2

    def update_once() -> tasks_pb2.Task:
        read = tasks_pb2.GetTaskRequest(task=task, view=tasks_pb2.TASK_VIEW_BASIC)
        found = connection.call(connection.tasks.GetTask, read)
        # By its id: if the task is deleted, another task may get its name.
        request = tasks_pb2.UpdateTaskRequest(task=found.id, etag=found.etag)
        if display_name is not None:
            request.display_name = display_name
            request.update_mask.paths.append("display_name")
        if labels or removed:
            kept = {key: value for key, value in found.labels.items() if key not in removed}
            request.labels.update({**kept, **labels})
            request.update_mask.paths.append("labels")
        return connection.call(connection.tasks.UpdateTask, request)

    try:
        return update_once()
    except CommandFailed as failure:
        if not isinstance(failure.__cause__, EtagMismatch):
            raise
    return update_once()
