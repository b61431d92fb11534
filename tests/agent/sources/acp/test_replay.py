"""Sessions that are loaded: what an agent repeats is not added to the log."""

from __future__ import annotations

from tasklogs.log.entry import EntryType
from tests.agent.sources.acp.stream import (
    Message,
    chunk,
    entries,
    load,
    new_session,
    prompt,
    request,
    result,
    turn,
    update,
)

INPUT, OUTPUT = EntryType.INPUT, EntryType.OUTPUT
FIRST = [*new_session(0), *turn(1, "q", "a"), *turn(2, "q", "a")]
LOGGED = [(INPUT, "q"), (OUTPUT, "a"), (INPUT, "q"), (OUTPUT, "a")]


def user(said: str, message: str | None = None) -> Message:
    return chunk(said, message, of="user_message")


def repeated(times: int = 2) -> list[Message]:
    return [user("q"), chunk("a")] * times


def test_what_is_repeated_is_not_added() -> None:
    said = [*FIRST, request(0, "initialize"), *load(1, *repeated()), *turn(2, "r", "b")]
    assert entries(said) == [[*LOGGED, (INPUT, "r"), (OUTPUT, "b")]]


def test_what_was_said_elsewhere_meanwhile_is_added() -> None:
    elsewhere = [user("elsewhere"), chunk("was"), chunk(" said")]
    said = [*FIRST, *load(1, *repeated(), *elsewhere), *turn(2, "r", "b")]
    meanwhile = [(INPUT, "elsewhere"), (OUTPUT, "was said")]
    assert entries(said) == [[*LOGGED, *meanwhile, (INPUT, "r"), (OUTPUT, "b")]]


def test_with_a_message_in_another_form_nothing_is_added() -> None:
    other = [user("q (edited)"), chunk("a"), user("q"), chunk("a"), user("elsewhere")]
    assert entries([*FIRST, *load(1, *other)]) == [LOGGED]


def test_an_answer_that_was_cut_short_is_not_repeated() -> None:
    cut = [*FIRST, prompt(3, "long"), chunk("begi"), request(0, "initialize")]
    again = load(1, *repeated(), user("long", "m1"), user("elsewhere", "m2"))
    logged = [*LOGGED, (INPUT, "long"), (OUTPUT, "begi")]
    assert entries([*cut, *again]) == [[*logged, (INPUT, "elsewhere")]]


def test_tools_that_are_repeated_are_not_added() -> None:
    tool = update("tool_call", toolCallId="t", title="Read", status="completed")
    first = [*new_session(0), prompt(1, "q"), tool, chunk("a"), result(1, stopReason="end_turn")]
    assert len(entries([*first, *load(1, user("q"), tool, chunk("a"))])[0]) == 4


def test_what_is_repeated_after_the_response_is_not_added() -> None:
    """As Gemini CLI does it, with messages of its own between them."""
    tool = update("tool_call", toolCallId="t", title="Read", status="completed")
    first = [*new_session(0), prompt(1, "q"), tool, chunk("a"), result(1, stopReason="end_turn")]
    late = [user("q"), prompt(2, "r"), tool, user("[Function Response: read]"), chunk("a")]
    said = [*first, request(0, "initialize"), *load(1, user("<session_context>")), *late]
    said += [chunk("b"), chunk("c"), result(2, stopReason="end_turn")]
    assert entries(said)[0][4:] == [(INPUT, "r"), (OUTPUT, "bc")]


def test_what_is_repeated_late_in_another_form_is_not_added() -> None:
    late = [user("q"), prompt(2, "r"), chunk("a[Function Call: read]"), user("q"), chunk("a")]
    said = [*FIRST, prompt(3, "cut"), request(0, "initialize")]
    said += [*load(1, user("<session_context>")), *late, chunk("b"), chunk("c")]
    assert entries(said) == [[*LOGGED, (INPUT, "cut"), (INPUT, "r")]]
    said += [result(2, stopReason="end_turn")]
    assert entries(said) == [[*LOGGED, (INPUT, "cut"), (INPUT, "r"), (OUTPUT, "bc")]]


def test_an_answer_after_an_incomplete_repetition_is_added() -> None:
    again = load(1, user("q"), chunk("a"))
    said = [*FIRST, *again, prompt(2, "r"), chunk(""), chunk("a"), chunk("b")]
    assert entries(said)[0][4:] == [(INPUT, "r"), (OUTPUT, "ab")]


def test_a_call_after_an_incomplete_repetition_is_added() -> None:
    call = update("tool_call", toolCallId="new", title="Read", status="in_progress")
    said = [*FIRST, *load(1, user("q")), prompt(2, "r"), call, chunk("a")]
    assert entries(said)[0][4:] == [(INPUT, "r"), (EntryType.TOOL_CALL, "Read"), (OUTPUT, "a")]
