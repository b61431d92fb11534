"""What the agent stream has beyond its required parts, and how the agent goes without it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tasklogs import compression
from tasklogs.features import COMPRESSED_MESSAGES, CONTENT_DELTA_PIECES, ENTRY_NAMES
from tasklogs.log.append import Append
from tasklogs.log.entry import NO_NAMES, Entry, EntryType
from tasklogs.v1 import task_agents_pb2 as pb

# With what is around the entries, this is shorter than what may be compressed.
_PART_BYTES = 240 * 1024
_PART_ENTRIES = 200
_DEFAULT_TYPES = frozenset({EntryType.INPUT, EntryType.OUTPUT})


@dataclass(frozen=True, slots=True)
class ServerFeatures:
    """What the server of one stream understands. The defaults are the required parts."""

    content_delta_pieces: bool = False
    entry_names: bool = False
    compressed_messages: bool = False
    entry_types: frozenset[EntryType] = _DEFAULT_TYPES

    @classmethod
    def of(cls, welcome: pb.Welcome) -> ServerFeatures:
        """Return what `welcome` names. Unknown names and types are ignored."""
        named, numbers = frozenset(welcome.features), frozenset(map(int, welcome.entry_types))
        types = frozenset(one for one in EntryType if one in numbers)
        return cls(
            content_delta_pieces=CONTENT_DELTA_PIECES in named,
            entry_names=ENTRY_NAMES in named,
            compressed_messages=COMPRESSED_MESSAGES in named,
            entry_types=types if welcome.entry_types else _DEFAULT_TYPES,
        )

    def compressible(self, append: Append) -> Sequence[Append]:
        """Return the parts of `append` that can be compressed, or `append` if it is not worthwhile.

        One ack is for all parts.
        """
        if not self.compressed_messages or append.size_bytes <= _PART_BYTES:
            return [append]
        if not compression.shrinks(b"".join(entry.content for entry in append.entries)):
            return [append]
        return append.parts(_PART_ENTRIES, _PART_BYTES)

    def accepts(self, entry: Entry) -> bool:
        """Whether the server stores entries of this type."""
        return entry.type in self.entry_types

    def fitted(self, entry: Entry) -> Entry:
        """Return `entry` as this server can store it: without its names if it has no names."""
        if self.entry_names or entry.names == NO_NAMES:
            return entry
        return replace(entry, names=NO_NAMES)

    def fitted_all(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return the entries that this server can store, as it can store them."""
        return [self.fitted(entry) for entry in entries if self.accepts(entry)]
