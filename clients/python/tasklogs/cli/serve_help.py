"""`tasklogs serve --help`: the options, then the settings that only a variable sets."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from typer.core import TyperCommand


class ServeCommand(TyperCommand):
    """Reads the server's settings when --help is shown, and only then."""

    # Typer's own classes for these two are private.
    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the variables of the settings that have no option."""
        options = {parameter.name for parameter in self.params}
        with formatter.section("Settings without a flag (PT3S or 3: 3 seconds; sizes: bytes)"):
            formatter.write_dl(_variables(options))


def _variables(options: Collection[str | None]) -> list[tuple[str, str]]:
    try:
        from tasklogs_server.settings import ServerSettings
    except ModuleNotFoundError:
        return [("(none)", "The server is not installed here.")]
    prefix = ServerSettings.model_config.get("env_prefix", "")
    return [
        (
            f"{prefix}{name}".upper(),
            f"{field.description or ''}  [default: {_plain(field.default)}]",
        )
        for name, field in ServerSettings.model_fields.items()
        if name not in options
    ]


def _plain(default: object) -> str:
    if default is None or default == "":
        return "unset"
    # The form that the variable accepts: ISO 8601.
    return f"PT{default.total_seconds():g}S" if isinstance(default, timedelta) else str(default)
