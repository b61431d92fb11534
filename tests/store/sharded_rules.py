"""What Citus refuses in a statement, as rules over its text.

A statement is a tree of queries. Each rule looks at one query: at its own text, in which the
queries inside it are replaced by `(...)`, or at all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

_IGNORED = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
_QUERY = re.compile(r"\s*(?:WITH(?: RECURSIVE)?|SELECT|INSERT|UPDATE|DELETE)\b")
_IS_CTE = re.compile(r"\bAS (?:(?:NOT )?MATERIALIZED )?$")
_VOLATILE = re.compile(r"\b(?:clock_timestamp|timeofday|random|gen_random_uuid|nextval)\(")
_OF_ONE_TASK = re.compile(r"\btask_id = \$\d|\bowner = \$\d")


@dataclass(frozen=True)
class Query:
    """A query in a statement."""

    own: str
    """Its text without the queries inside it."""
    whole: str
    before: str = ""
    """The text before its bracket, from the beginning of the query that it is in."""
    is_nested: bool = True

    @property
    def changes(self) -> str:
        """UPDATE, DELETE or INSERT, whatever CTEs precede it; '' if it changes nothing."""
        found = re.search(r"^(?:WITH\b.*\) )?(UPDATE|DELETE|INSERT)\b", self.own)
        return found[1] if found else ""

    @property
    def is_cte(self) -> bool:
        return _IS_CTE.search(self.before) is not None

    @property
    def locks(self) -> bool:
        return "FOR UPDATE" in self.own


def refused(statement: str) -> list[str]:
    """Return the rules that a statement breaks."""
    text = re.sub(r"\s+", " ", _IGNORED.sub("''", statement)).strip()
    found = queries(text)
    return [name for name, breaks in RULES.items() if any(map(breaks, found))]


def queries(text: str) -> list[Query]:
    """Return the queries of a statement, the outermost one last."""
    found: list[Query] = []
    own, _ = _read(text, 0, found)
    found.append(Query(own, text, is_nested=False))
    return found


def _read(text: str, at: int, found: list[Query]) -> tuple[str, int]:
    """Read up to the bracket that closes what is open at `at`; return the text, and that place."""
    own = ""
    while at < len(text) and text[at] != ")":
        if text[at] != "(":
            own, at = own + text[at], at + 1
            continue
        inner, end = _read(text, at + 1, found)
        if _QUERY.match(inner):
            whole = text[at + 1 : end].strip()
            found.append(Query(inner.strip(), whole, own))
            inner = "..."
        own, at = f"{own}({inner})", end + 1
    return own, at


def _is_volatile(query: Query) -> bool:
    return query.changes in ("UPDATE", "DELETE") and bool(_VOLATILE.search(_body(query)))


def _body(query: Query) -> str:
    """Return its whole text; without its CTEs, which are looked at by themselves."""
    return query.own if query.own.startswith("WITH") else query.whole


def _returns_nothing(query: Query) -> bool:
    return query.is_cte and bool(query.changes) and "RETURNING" not in query.own


def _selects_nothing(query: Query) -> bool:
    return query.is_nested and query.own.startswith("SELECT FROM")


def _locks_a_join(query: Query) -> bool:
    return query.locks and " JOIN " in query.own


def _locks_many_tasks(query: Query) -> bool:
    return query.locks and not _OF_ONE_TASK.search(query.own)


def _moves_by_place(query: Query) -> bool:
    return "ctid" in query.own and not _OF_ONE_TASK.search(query.own)


def _looks_up_a_name(query: Query) -> bool:
    return query.is_nested and not query.is_cte and "FROM task_names" in query.own


def _joins_laterally(query: Query) -> bool:
    """Whether a LATERAL join with OFFSET is in a statement about many tasks."""
    if query.is_nested or _OF_ONE_TASK.search(query.whole):
        return False
    return any(
        one.before.endswith("LATERAL ") and " OFFSET " in one.own for one in queries(query.whole)
    )


RULES: Mapping[str, Callable[[Query], bool]] = {
    "a volatile function in UPDATE or DELETE: use statement_timestamp()": _is_volatile,
    "a CTE that changes rows without RETURNING": _returns_nothing,
    "SELECT without a column in a query: use SELECT 1": _selects_nothing,
    "FOR UPDATE over a join": _locks_a_join,
    "FOR UPDATE of the rows of many tasks: use one statement for each": _locks_many_tasks,
    "rows by ctid without `task_id = $n`": _moves_by_place,
    "a name that is looked up inside another query": _looks_up_a_name,
    "LATERAL with OFFSET 0 over many tasks": _joins_laterally,
}


def all_refused(statements: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the name of each statement that breaks a rule, and the rule."""
    for name, statement in statements.items():
        for rule in refused(statement):
            yield name, rule
