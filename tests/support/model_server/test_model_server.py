"""The scripted model answers in each protocol what its script says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.model_server import Call, ModelServer, Reply, Text, say

PROMPT = "What does the file say?"
ANSWER = "It says 漢字, " + "and so on " * 40
SCRIPT = {
    PROMPT: [Reply((Text("I look."), Call("read", {"path": "a.txt"}))), say(ANSWER)],
    "Wait.": [say("A long answer that is held. " * 20, held=True)],
}


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer(SCRIPT) as server:
        yield server


@pytest.fixture
async def http(model: ModelServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=model.url, trust_env=False, timeout=60) as client:
        yield client


async def events(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> list[Any]:
    answer = await http.post(path, json=body)
    assert answer.status_code == 200
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if "data: " in line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def anthropic_body(*, stream: bool) -> dict[str, Any]:
    reminder = {"type": "text", "text": "<system-reminder>Be good.</system-reminder>"}
    prompt = {"type": "text", "text": PROMPT}
    message = {"role": "user", "content": [reminder, prompt]}
    return {"model": "m", "stream": stream, "messages": [message]}


async def test_anthropic_streams_the_text_and_then_the_call(http: httpx.AsyncClient) -> None:
    got = await events(http, "/v1/messages", anthropic_body(stream=True))
    deltas = [event["delta"] for event in got if event["type"] == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == "I look."
    arguments = "".join(delta.get("partial_json", "") for delta in deltas)
    assert json.loads(arguments) == {"path": "a.txt"}
    assert got[-2]["delta"]["stop_reason"] == "tool_use"
    assert got[-1]["type"] == "message_stop"


async def test_anthropic_answers_the_result_of_the_call(http: httpx.AsyncClient) -> None:
    body = anthropic_body(stream=False)
    call = (await http.post("/v1/messages", json=body)).json()["content"][1]
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "hello"}
    body["messages"] += [
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    answer = (await http.post("/v1/messages", json=body)).json()
    assert answer["content"] == [{"type": "text", "text": ANSWER}]
    assert answer["stop_reason"] == "end_turn"


async def test_responses_counts_a_text_and_its_calls_as_one_answer(
    http: httpx.AsyncClient,
) -> None:
    prompt = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": PROMPT}],
    }
    first = await events(http, "/v1/responses", {"model": "m", "input": [prompt]})
    items = first[-1]["response"]["output"]
    assert [item["type"] for item in items] == ["message", "function_call"]
    result = {"type": "function_call_output", "call_id": items[1]["call_id"], "output": "hello"}
    body = {"model": "m", "input": [prompt, *items, result]}
    second = await events(http, "/v1/responses", body)
    deltas = [event["delta"] for event in second if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == ANSWER


async def test_chat_streams_the_call_in_pieces(http: httpx.AsyncClient) -> None:
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": f'"{PROMPT}"'}]}
    got = await events(http, "/v1/chat/completions", body)
    choices = [event["choices"][0] for event in got if event["choices"]]
    said = "".join(choice["delta"].get("content", "") for choice in choices)
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    assert said == "I look."
    assert "".join(call["function"]["arguments"] for call in calls) == '{"path": "a.txt"}'
    assert choices[-1]["finish_reason"] == "tool_calls"


async def test_gemini_streams_parts(http: httpx.AsyncClient) -> None:
    content = {"role": "user", "parts": [{"text": PROMPT}]}
    path = "/v1beta/models/m:streamGenerateContent?alt=sse"
    got = await events(http, path, {"contents": [content]})
    parts = [part for event in got for part in event["candidates"][0]["content"]["parts"]]
    assert parts[0] == {"text": "I look."}
    assert parts[1] == {"functionCall": {"name": "read", "args": {"path": "a.txt"}}}
    assert got[-1]["candidates"][0]["finishReason"] == "STOP"


async def test_what_is_no_prompt_of_the_script_gets_a_short_answer(
    http: httpx.AsyncClient, model: ModelServer
) -> None:
    messages = [{"role": "user", "content": "Write a title."}]
    answer = await http.post("/v1/chat/completions", json={"model": "m", "messages": messages})
    assert answer.json()["choices"][0]["message"]["content"] == "Scripted summary."
    assert [asked.texts for asked in model.asked] == [["Write a title."]]


async def test_an_unknown_path_is_noted(http: httpx.AsyncClient, model: ModelServer) -> None:
    assert (await http.get("/v1/other")).status_code == 404
    assert model.unknown == ["GET /v1/other"]


async def test_a_held_answer_stands_in_the_middle_until_it_is_released(
    http: httpx.AsyncClient, model: ModelServer
) -> None:
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Wait."}]}
    answering = asyncio.create_task(events(http, "/v1/messages", body))
    await model.is_holding.wait()
    assert not answering.done()
    model.release()
    assert (await answering)[-1]["type"] == "message_stop"
