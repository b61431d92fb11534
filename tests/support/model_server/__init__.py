"""A scripted model that speaks the protocols of the agents' vendors, streaming."""

from tests.support.model_server.script import Block, Call, Reply, Script, Text, say
from tests.support.model_server.server import ModelServer

__all__ = ["Block", "Call", "ModelServer", "Reply", "Script", "Text", "say"]
