"""`tasklogs.v1.TaskAgents`: agents send logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
import structlog

from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs_server.domain.caller import Agent
from tasklogs_server.domain.errors import (
    FieldViolation,
    InvalidFields,
    ProtocolViolation,
    SessionLost,
    Unsupported,
)
from tasklogs_server.ingest.messages import GoodbyeReason
from tasklogs_server.ingest.session import Session
from tasklogs_server.ingest.sessions import Sessions
from tasklogs_server.ingest.upload import PartialUpload, Uploads
from tasklogs_server.limits.greetings import Greeting, Greetings
from tasklogs_server.services import agent_codec as codec
from tasklogs_server.services import agent_messages, upload_codec
from tasklogs_server.tasks.agent_tokens import AgentTokens
from tasklogs_server.wire.times import timestamp

_HELLO_TIMEOUT_SECONDS = 10.0
# A peer that does not read never causes an error. A message that cannot be sent within this time
# ends the stream.
_WRITE_TIMEOUT_SECONDS = 30.0
_REASON_CHARACTERS = 500

_log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class TaskAgentsService:
    """The handlers of `tasklogs.v1.TaskAgents`."""

    def __init__(self, tokens: AgentTokens, sessions: Sessions, uploads: Uploads) -> None:
        self._tokens = tokens
        self._sessions = sessions
        self._uploads = uploads
        self._greetings = Greetings()

    async def connect(self, messages: AsyncIterator[bytes], context: Context, agent: Agent) -> None:
        """Serve one agent stream of encoded AgentMessages, from its Hello to its end."""
        with self._greetings.of(agent.task_id) as greeting:
            hello = codec.hello(await _first(messages, greeting))
        async with self._sessions.connect(
            agent.task_id, hello, token_hash=agent.token_hash
        ) as session:
            # A rotation of the token ends an open session. This finds a rotation that came before
            # the session was open.
            await self._tokens.still_opens(agent)
            await _write(context, codec.welcome(session.welcome))
            receiving = asyncio.create_task(self._receive(messages, session))
            try:
                await _send(session, context)
            finally:
                receiving.cancel()
                with suppress(asyncio.CancelledError):
                    await receiving

    async def upload_log_snapshot(
        self, encoded: bytes, _: Context, agent: Agent
    ) -> pb.UploadLogSnapshotResponse:
        """Store a whole conversation, an encoded UploadLogSnapshotRequest."""
        async with self._uploads.turn(agent.task_id, len(encoded)) as turn:
            stored = await self._uploads.upload(
                agent.task_id,
                await upload_codec.snapshot_entries(encoded, self._uploads.share),
                turn=turn,
                still_opens=lambda: self._tokens.still_opens(agent),
            )
        return pb.UploadLogSnapshotResponse(
            snapshot_at=timestamp(stored.snapshot_at), revision=stored.revision
        )

    async def _receive(self, messages: AsyncIterator[bytes], session: Session) -> None:
        """Handle what the agent sends until it leaves. Any error ends the session."""
        try:
            async for encoded in messages:
                message = await agent_messages.message(encoded, self._sessions.share)
                if await self._handle(message, session):
                    break
        except Exception as error:
            if isinstance(error, Unsupported):
                _log.warning(
                    "agent_message.refused", task=str(session.task_id), unsupported=error.what
                )
            session.end(error)
        else:
            session.end(None)  # it said Goodbye, or its stream ended without one

    async def upload_log_snapshot_in_parts(
        self,
        messages: AsyncIterator[bytes],
        _: Context,
        agent: Agent,
    ) -> pb.UploadLogSnapshotInPartsResponse:
        """Store a whole conversation, of encoded UploadLogSnapshotInPartsRequests."""
        with self._uploads.in_parts(agent.task_id) as upload:
            await self._collect(messages, upload)
            stored = await self._uploads.upload_parts(
                agent.task_id,
                upload,
                still_opens=lambda: self._tokens.still_opens(agent),
            )
        return pb.UploadLogSnapshotInPartsResponse(
            snapshot_at=timestamp(stored.snapshot_at), revision=stored.revision
        )

    async def _collect(self, messages: AsyncIterator[bytes], upload: PartialUpload) -> None:
        """Add what all messages have. Raises InvalidFields, LimitExceeded, Unsupported.

        A stream that breaks ends like one that its caller has closed, so the last message says that
        it is the last.
        """

        async def arrive() -> bytes | None:
            return await anext(messages, None)

        number, is_complete = 0, False
        while (encoded := await upload.place.next_part(arrive)) is not None:
            number += 1
            upload.place.received(len(encoded))
            if is_complete:
                raise InvalidFields(
                    [FieldViolation("last", "must be set in the last message only")]
                )
            part = await upload_codec.part_of(encoded, self._uploads.share)
            if not part.runs and not part.last:
                raise Unsupported("parts of an upload without entries")
            try:
                await self._add(part, upload)
            except InvalidFields as error:
                raise InvalidFields(
                    [
                        FieldViolation(one.field, f"{one.description} (message {number})")
                        for one in error.violations
                    ]
                ) from None
            is_complete = part.last
        if not is_complete:
            raise InvalidFields([FieldViolation("last", "must be set in the last message")])

    async def _add(self, part: upload_codec.Part, upload: PartialUpload) -> None:
        decoded = upload_codec.DecodedEntries(after_id=upload.last_id)
        for run in part.runs:
            await self._uploads.share.run(partial(upload_codec.decode_run, part, run, decoded))
            upload.add(decoded.take())
        decoded.check()

    async def _handle(self, message: pb.AgentMessage, session: Session) -> bool:
        """Handle one message. Returns True if it was the last."""
        match message.WhichOneof("message"):
            case "append":
                await session.append(await codec.append(message.append, self._sessions.share))
            case "sync_done":
                session.sync_done(message.sync_done.id)
            case "sync_failed":
                reason = message.sync_failed.reason[:_REASON_CHARACTERS]
                session.sync_failed(message.sync_failed.id, reason)
            case "state":
                await self._sessions.report(session, codec.state(message.state))
            case "goodbye":
                pausing = message.goodbye.reason == pb.Goodbye.REASON_PAUSING
                await self._sessions.goodbye(
                    session, GoodbyeReason.PAUSING if pausing else GoodbyeReason.STOPPING
                )
                return True
            case "hello":
                raise ProtocolViolation("Hello must be sent once, as the first message")
            case "compressed" | None:  # what was compressed is expanded already
                raise Unsupported("messages without a case that it knows")
        return False


async def _first(messages: AsyncIterator[bytes], greeting: Greeting) -> pb.AgentMessage:
    try:
        async with greeting.within(_HELLO_TIMEOUT_SECONDS):
            return agent_messages.first_message(await anext(messages))
    except (StopAsyncIteration, TimeoutError):
        raise ProtocolViolation("the first message must be Hello") from None


async def _send(session: Session, context: Context) -> None:
    while events := await session.outbox.next_events():
        for event in events:
            await _write(context, codec.event(event))


async def _write(context: Context, message: pb.ServerMessage) -> None:
    try:
        async with asyncio.timeout(_WRITE_TIMEOUT_SECONDS):
            await context.write(message.SerializeToString())
    except TimeoutError:
        raise SessionLost from None
