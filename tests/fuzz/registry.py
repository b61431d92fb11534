"""The targets by name. Each is imported on request, because engines instrument it then."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType

from tests.fuzz.target import Target

TARGETS: Mapping[str, str] = MappingProxyType(
    {
        "agent_messages": "tests.fuzz.targets.agent_messages:AgentMessages",
        "agent_tokens": "tests.fuzz.targets.agent_tokens:AgentTokens",
        "agentapi_json": "tests.fuzz.targets.agentapi_json:AgentApiBodies",
        "agentapi_sse": "tests.fuzz.targets.agentapi_sse:AgentApiEvents",
        "certificates": "tests.fuzz.targets.certificates:Certificates",
        "cursors": "tests.fuzz.targets.cursors:Cursors",
        "deltas": "tests.fuzz.targets.deltas:Deltas",
        "error_details": "tests.fuzz.targets.error_details:ErrorDetails",
        "follow_events": "tests.fuzz.targets.follow_events:FollowEvents",
        "key_urls": "tests.fuzz.targets.key_urls:KeyUrls",
        "keys": "tests.fuzz.targets.keys:KeyDocuments",
        "requests": "tests.fuzz.targets.requests:Requests",
        "server_messages": "tests.fuzz.targets.server_messages:ServerMessages",
        "terminal_text": "tests.fuzz.targets.texts:TerminalText",
        "text": "tests.fuzz.targets.texts:Texts",
        "uploads": "tests.fuzz.targets.uploads:Uploads",
        "user_tokens": "tests.fuzz.targets.user_tokens:UserTokens",
    }
)


def load(name: str) -> type[Target]:
    """Return the class of the target."""
    module, _, attribute = TARGETS[name].partition(":")
    loaded: type[Target] = getattr(importlib.import_module(module), attribute)
    assert loaded.name == name
    return loaded
