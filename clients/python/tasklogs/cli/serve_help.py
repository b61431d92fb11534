"""`tasklogs serve --help`: the options, then the settings that only a variable sets."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args

from typer.core import TyperCommand

if TYPE_CHECKING:
    from tasklogs_server.settings import ServerSettings

_MIB = 1024 * 1024


class ServeCommand(TyperCommand):
    """Reads the server's settings when --help is shown, and only then."""

    # Typer's own classes for these two are private.
    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the variables of the settings that have no option."""
        options = {parameter.name for parameter in self.params}
        with formatter.section(
            "Settings that only a variable sets (durations: 3 or PT3S for 3 seconds; sizes: bytes)"
        ):
            formatter.write_dl(_variables(options))


def setting_variables() -> Sequence[str]:
    """Return the names of the variables of all settings; none if the server is not installed."""
    settings = _settings()
    return () if settings is None else [_variable(settings, name) for name in settings.model_fields]


def _variables(options: Collection[str | None]) -> list[tuple[str, str]]:
    settings = _settings()
    if settings is None:
        return [("(none)", "The server is not installed here.")]
    return [
        (
            _variable(settings, name),
            f"{field.description or ''}{_choices(field.annotation)}"
            f"  [default: {_plain(field.default)}]",
        )
        for name, field in settings.model_fields.items()
        if name not in options
    ]


def _settings() -> type[ServerSettings] | None:
    try:
        from tasklogs_server.settings import ServerSettings
    except ModuleNotFoundError:
        return None
    return ServerSettings


def _variable(settings: type[ServerSettings], name: str) -> str:
    return f"{settings.model_config.get('env_prefix', '')}{name}".upper()


def choices_of(annotation: Any) -> Sequence[str]:
    """Return the values of a setting that has a fixed set of them; empty for other settings."""
    return [one for one in get_args(annotation) if isinstance(one, str)]


def _choices(annotation: Any) -> str:
    choices = choices_of(annotation)
    return f" One of {', '.join(choices)}." if choices else ""


def _plain(default: object) -> str:
    if default is None or default == "":
        return "unset"
    if isinstance(default, timedelta):
        seconds = f"{default.total_seconds():g} s"
        return f"{seconds} ({default.days} days)" if default.days else seconds
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, int) and default >= _MIB and default % _MIB == 0:
        return f"{default} ({default // _MIB} MiB)"
    return str(default)
