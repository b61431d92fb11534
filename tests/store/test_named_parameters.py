"""Named parameters become numbers. The rest of a statement does not change."""

from __future__ import annotations

import pytest

from tasklogs_server.store.named_parameters import NamedStatement
from tests.store.logs import Connection


def test_names_are_numbered_in_the_order_in_which_they_first_occur() -> None:
    statement = NamedStatement("UPDATE t SET b = :b, c = :c2 WHERE a = :a AND b <> :b")
    assert statement.sql == "UPDATE t SET b = $1, c = $2 WHERE a = $3 AND b <> $1"
    assert statement.arguments({"a": "a", "c2": "c", "b": "b"}) == ("b", "c", "a")


@pytest.mark.parametrize(
    "text",
    [
        "'a :literal'",
        "'it''s :literal'",
        '":quoted"',
        "-- a :comment\n",
        "/* a :longer\n:comment */",
        "now()::date",
        "t.ids[1:2]",
        "interval '00:15:00'",
    ],
)
def test_text_that_is_not_a_parameter_stays_unchanged(text: str) -> None:
    statement = NamedStatement(f"SELECT :a, {text}, :b")
    assert statement.sql == f"SELECT $1, {text}, $2"


def test_a_cast_may_follow_a_name_at_once() -> None:
    assert NamedStatement("SELECT :a::int[], :b::text").sql == "SELECT $1::int[], $2::text"


@pytest.mark.parametrize("template", ["SELECT :a, :b, $1", "SELECT $1", "SELECT :a", "SELECT 1"])
def test_numbers_and_statements_that_need_no_names_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match="name"):
        NamedStatement(template)


@pytest.mark.parametrize("values", [{"a": 1}, {"a": 1, "b": 2, "c": 3}, {"a": 1, "c": 2}])
def test_values_and_parameters_must_match(values: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="parameter"):
        NamedStatement("SELECT :a, :b").arguments(values)


async def test_postgres_accepts_the_statement(sql: Connection) -> None:
    statement = NamedStatement("SELECT :a::int - :b::int, ':c', :a::int")
    row = await sql.fetchrow(statement.sql, *statement.arguments({"b": 1, "a": 3}))
    assert row is not None
    assert tuple(row) == (2, ":c", 3)
