"""`tasklogs server-info`: what a server is and can do."""

from __future__ import annotations

from tasklogs.cli.options import Output, OutputOption
from tasklogs.cli.render.stdout import write_line
from tasklogs.cli.target import Target, connects


@connects
def server_info(target: Target, output: OutputOption = Output.TEXT) -> None:
    """Show a server's version, features and limits, and the version of this command.

    It needs a token if the server requires one. The agent token of a task is accepted too.
    """

    from tasklogs.cli.connection import Connection
    from tasklogs.cli.render.protobuf_json import print_json, to_dict
    from tasklogs.cli.render.server_text import describe
    from tasklogs.v1 import task_logs_pb2
    from tasklogs.version import version

    with Connection(target) as connection:
        info = connection.call(
            connection.task_logs.GetServerInfo, task_logs_pb2.GetServerInfoRequest()
        )
    if output is Output.JSON:
        print_json({"clientVersion": version(), "server": to_dict(info)})
    else:
        for line in describe(info, target.server, version()):
            write_line(line)
