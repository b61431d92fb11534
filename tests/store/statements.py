"""All SQL statements of the server, found in its modules."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from itertools import product
from types import ModuleType

import tasklogs_server.bus
import tasklogs_server.store
from tasklogs_server.domain.description import TaskView
from tasklogs_server.domain.status import TaskStatus
from tasklogs_server.store.list_statements import (
    ListFilter,
    page_statement,
    search_end_statement,
)
from tasklogs_server.store.named_parameters import NamedStatement

_BEGINS = re.compile(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE|TRUNCATE)\b")
# Constants that are parts of statements: not one of them is executed as it is.
_PARTS = {"list_statements._LISTED", "list_statements._LISTED_SHARDED", "commit_statements._CHANGE"}


def statements() -> Mapping[str, str]:
    """Return the statements of the server by their names, such as `log_writes._COMMIT`."""
    found = dict(_lists())
    for package in (tasklogs_server.store, tasklogs_server.bus):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            if not module.ispkg:
                found.update(_constants(importlib.import_module(module.name)))
    return found


def _constants(module: ModuleType) -> Iterator[tuple[str, str]]:
    place = module.__name__.rpartition(".")[2]
    for name, value in vars(module).items():
        named = f"{place}.{name}"
        if name.strip("_").isupper() and named not in _PARTS:
            for key, one in _texts(value):
                if _BEGINS.match(one):
                    yield named + key, one


def _texts(value: object) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield "", value
        case NamedStatement():
            yield "", value.sql
        case dict():
            for key, one in value.items():
                yield from ((f"[{key}]", text) for _, text in _texts(one))


def _lists() -> Iterator[tuple[str, str]]:
    """Yield the statements of lists, which are made when they are first needed."""
    for of_owner, labelled, status in product((False, True), (False, True), (None, *TaskStatus)):
        by = ListFilter(of_owner, labelled, status)
        words = [
            *(["owner"] if of_owner else []),
            *(["labels"] if labelled else []),
            *([] if status is None else [str(status)]),
        ]
        for view, sharded in product(TaskView, (False, True)):
            key = " ".join((view.name, *words, *(["sharded"] if sharded else [])))
            yield f"page_statement[{key}]", page_statement(view, by, sharded=sharded).sql
        if by.needs_search:
            yield f"search_end_statement[{' '.join(words)}]", search_end_statement(by).sql
