"""The text of ACP's content blocks. What is no text is only named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

_MAX_NAME_CHARACTERS = 1000


def text_of_blocks(blocks: Any) -> str:
    """Return the text of a message's blocks. A link stands in the middle of a sentence."""
    return "".join(map(text_of_block, blocks)) if isinstance(blocks, list) else ""


def text_of_block(block: Any) -> str:
    """Return the text of one block."""
    match block:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "resource_link", "uri": str(uri), "name": str(name)}:
            return f"[{_short(name)}]({_short(uri)})"
        case {"type": "resource", "resource": {"uri": str(uri)}}:
            return f"[resource]({_short(uri)})"
        case {"type": str(kind)}:
            return f"[{_short(kind)}]"
    return ""


def text_of_tool_content(content: Iterable[Any]) -> str:
    """Return the text of what a tool has produced."""
    return "\n".join(filter(None, map(_text_of_produced, content)))


def _text_of_produced(part: Any) -> str:
    match part:
        case {"type": "content", "content": block}:
            return text_of_block(block)
        case {"type": "diff", "path": str(path), "newText": str(new)}:
            old = part.get("oldText")
            lines = [f"[diff]({_short(path)})"]
            lines += _marked("-", old if isinstance(old, str) else "")
            return "\n".join([*lines, *_marked("+", new)])
        case {"type": str(kind)}:
            return f"[{_short(kind)}]"
    return ""


def _marked(mark: str, text: str) -> Iterator[str]:
    return (f"{mark}{line}" for line in text.splitlines())


def _short(text: str) -> str:
    return text[:_MAX_NAME_CHARACTERS]
