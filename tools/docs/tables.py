"""Tables of settings, metrics and log events, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import typer

from tasklogs.agent.log_events import LOG_EVENTS as AGENT_EVENTS
from tasklogs.cli.main import app
from tasklogs.cli.serve_help import choices_of
from tasklogs.log_output import LogEvent
from tasklogs_server.settings import ServerSettings
from tasklogs_server.telemetry.catalogue import catalogue
from tasklogs_server.telemetry.log_events import LOG_EVENTS as SERVER_EVENTS


def server_settings() -> str:
    """Return every setting of `tasklogs serve`."""
    flags = {parameter.name: parameter.opts[0] for parameter in _parameters("serve")}
    rows = [
        (
            f"`TASKLOGS_{name.upper()}`",
            f"`{flags[name]}`" if name in flags else "",
            _default(name, field.default),
            (field.description or "") + _choices(field.annotation),
        )
        for name, field in ServerSettings.model_fields.items()
    ]
    return _table(("variable", "flag", "default", "meaning"), rows)


def agent_settings() -> str:
    """Return every setting of `tasklogs agent`."""
    rows = [
        (
            f"`{parameter.envvar}`",
            f"`{parameter.opts[0]}`",
            _agents_default(parameter),
            parameter.help or "",
        )
        for parameter in _parameters("agent")
        if parameter.envvar
    ]
    return _table(("variable", "flag", "default", "meaning"), rows)


def agent_log_events() -> str:
    """Return every event of the agent's log."""
    return _log_events(AGENT_EVENTS)


def metrics() -> str:
    """Return every metric of the server."""
    rows = [
        (
            f"`{one.name}`",
            one.kind,
            ", ".join(f"`{label}`" for label in one.labels),
            f"{one.documentation}.",
        )
        for one in catalogue()
    ]
    return _table(("metric", "kind", "labels", "meaning"), rows)


def server_log_events() -> str:
    """Every event of the server's log."""
    return _log_events(SERVER_EVENTS)


def _log_events(events: Iterable[LogEvent]) -> str:
    rows = [
        (
            f"`{one.name}`",
            one.level,
            ", ".join(f"`{field}`" for field in one.fields),
            one.meaning,
        )
        for one in events
    ]
    return _table(("event", "level", "fields", "meaning"), rows)


def _parameters(command: str) -> Sequence[Any]:
    group: Any = typer.main.get_command(app)
    found: Sequence[Any] = group.commands[command].params
    return found


def _agents_default(parameter: Any) -> str:
    # A text as the default describes it in words.
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    return "" if parameter.default is None else _default("", parameter.default)


def _default(name: str, default: object) -> str:
    if name == "data_dir":
        return "`$XDG_DATA_HOME/tasklogs`"  # the command computes it
    if default is None or default == "":
        return ""
    if isinstance(default, timedelta):
        seconds = f"{default.total_seconds():g} s"
        return f"{seconds} ({default.days} days)" if default.days else seconds
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int) and default >= 1024 * 1024 and default % (1024 * 1024) == 0:
        return f"{default // (1024 * 1024)} MiB (`{default}`)"
    return f"`{default}`"


def _choices(annotation: Any) -> str:
    choices = ", ".join(f"`{one}`" for one in choices_of(annotation))
    return f" One of {choices}." if choices else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines
    )
