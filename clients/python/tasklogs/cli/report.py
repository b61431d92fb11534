"""`tasklogs task report-build` and `report-agent`: the reports of an orchestrator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tasklogs.cli.choices import choice_option
from tasklogs.cli.options import (
    Output,
    OutputOption,
    TaskArgument,
    check_int32,
)
from tasklogs.cli.render.stdout import write_line
from tasklogs.cli.target import Target, connects
from tasklogs.enums import AgentLifecycle, AppHealth, BuildTransition, JobStatus

if TYPE_CHECKING:
    from tasklogs.v1 import tasks_pb2

BuildNumberOption = Annotated[
    int,
    typer.Option(
        "--build-number",
        metavar="N",
        callback=check_int32(1),
        show_default=False,
        help="The number of the workspace build, from 1.",
    ),
]


@connects
def report_build(
    target: Target,
    task: TaskArgument,
    build_number: BuildNumberOption,
    transition: Annotated[str, choice_option(BuildTransition, "What the build does.")],
    job_status: Annotated[str, choice_option(JobStatus, "The status of the build's job.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Report on a workspace build.

    The status of a build's job only moves forward. Repeating a report is not an error.
    """
    from tasklogs.cli.connection import Connection
    from tasklogs.v1 import tasks_pb2, types_pb2

    request = tasks_pb2.ReportBuildRequest(
        task=task,
        build_number=build_number,
        transition=types_pb2.BuildTransition.ValueType(BuildTransition[transition]),
        job_status=types_pb2.JobStatus.ValueType(JobStatus[job_status]),
    )
    with Connection(target) as connection:
        _print_status(connection.call(connection.tasks.ReportBuild, request).task, output)


@connects
def report_agent(
    target: Target,
    task: TaskArgument,
    build_number: BuildNumberOption,
    lifecycle: Annotated[
        str | None, choice_option(AgentLifecycle, "The lifecycle state of the agent.")
    ] = None,
    app_health: Annotated[
        str | None, choice_option(AppHealth, "The health of the task app.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Report on the agent of the latest build.

    Give --lifecycle, --app-health, or both. What is left out does not change.
    """
    from tasklogs.cli.connection import Connection
    from tasklogs.v1 import tasks_pb2, types_pb2

    if lifecycle is None and app_health is None:
        raise typer.BadParameter("give at least one", param_hint="--lifecycle / --app-health")
    request = tasks_pb2.ReportAgentRequest(task=task, build_number=build_number)
    if lifecycle is not None:
        request.lifecycle = types_pb2.AgentLifecycle.ValueType(AgentLifecycle[lifecycle])
    if app_health is not None:
        request.app_health = types_pb2.AppHealth.ValueType(AppHealth[app_health])
    with Connection(target) as connection:
        _print_status(connection.call(connection.tasks.ReportAgent, request).task, output)


def _print_status(task: tasks_pb2.Task, output: Output) -> None:
    from tasklogs.cli.render.protobuf_json import print_json, to_dict
    from tasklogs.cli.render.task_text import full_name, state

    if output is Output.JSON:
        shown = to_dict(task)
        del shown["prompt"]  # the server does not send it here
        print_json(shown)
    else:
        write_line(f"{full_name(task)} is {state(task.status)}")
