"""The targets by name, imported only when they are asked for: an engine instruments that import."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType

from tests.fuzz.target import Target

TARGETS: Mapping[str, str] = MappingProxyType(
    {
        "agent_messages": "tests.fuzz.targets.agent_messages:AgentMessages",
        "agent_tokens": "tests.fuzz.targets.agent_tokens:AgentTokens",
        "certificates": "tests.fuzz.targets.certificates:Certificates",
        "cursors": "tests.fuzz.targets.cursors:Cursors",
        "keys": "tests.fuzz.targets.keys:KeyDocuments",
        "requests": "tests.fuzz.targets.requests:Requests",
        "uploads": "tests.fuzz.targets.uploads:Uploads",
        "user_tokens": "tests.fuzz.targets.user_tokens:UserTokens",
    }
)


def load(name: str) -> type[Target]:
    """Return the target's class."""
    module, _, attribute = TARGETS[name].partition(":")
    loaded: type[Target] = getattr(importlib.import_module(module), attribute)
    assert loaded.name == name
    return loaded
