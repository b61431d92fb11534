"""How to install an extra of this package that is missing."""

from __future__ import annotations


def how_to_install(extra: str) -> str:
    """Say it as the end of an error's line.

    From an index it would be wrong: the project of this name there is another.
    """
    return (
        f"install the extra `{extra}`: pip install '.[{extra}]' in a checkout of TaskLogs,"
        f" or pip install 'PATH/TO/tasklogs-VERSION.whl[{extra}]'"
    )
