"""One-line breaks of the rules, each with the test that must then fail.

A rule without a test is only a wish. `make breaks` breaks a copy of the code in each of these ways
and runs the test. `test_breaks.py` checks that this table matches the code.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Break:
    """`line` of the file at `path`, found there exactly once, is replaced by `instead`."""

    rule: str
    what: str
    path: str
    line: str
    instead: str
    test: str
    """The node id, without parameters."""


_SERVER = "server/tasklogs_server"
_HELD_ROWS = "tests/system/faults/test_held_rows.py"
_CLIENTS = "clients/python/tasklogs"
_ELSEWHERE = "tests/system/faults/test_ended_elsewhere.py"

BREAKS = (
    Break(
        "I1",
        "an entry below the tail is accepted",
        f"{_SERVER}/ingest/draft.py",
        "elif entry.id < (self._lowest_next_id if tail is None else tail.id):",
        "elif entry.id < 0:",
        "tests/ingest/test_draft.py::test_an_invalid_append_is_refused",
    ),
    Break(
        "I1",
        "the growth of an entry that is not the tail goes to the tail",
        f"{_SERVER}/ingest/draft.py",
        "if tail is None or tail.id != change.id:",
        "if tail is None:",
        "tests/ingest/test_draft.py::test_an_invalid_append_is_refused",
    ),
    Break(
        "I1",
        "a new conversation continues the epoch",
        f"{_CLIENTS}/log/continuation.py",
        "if len(entries) < sealed or seal_all(entries[:sealed]) != stored.digest:",
        "if len(entries) < sealed:",
        "tests/log/test_continuation.py",
    ),
    Break(
        "I1",
        "a tail of another name continues the stored tail",
        f"{_CLIENTS}/log/continuation.py",
        "if (entry.id, entry.type, entry.names) != (tail.id, tail.type, tail.names):",
        "if (entry.id, entry.type) != (tail.id, tail.type):",
        "tests/log/test_continuation.py::test_a_tail_with_another_name_opens_an_epoch",
    ),
    Break(
        "I1",
        "a sealed entry of another name has the same digest",
        f"{_CLIENTS}/log/digest.py",
        "    return hashlib.sha256(digest + fields + hash_ + _encoded(names)).digest()",
        "    return hashlib.sha256(digest + fields + hash_).digest()",
        "tests/log/test_digest.py::test_it_covers_every_field",
    ),
    Break(
        "I5",
        "a large upload is committed slice by slice",
        f"{_SERVER}/store/log_writes.py",
        "                connection.transaction(),",
        "",
        "tests/ingest/test_large_uploads.py::test_if_postgres_refuses_its_last_row_nothing_is_stored",
    ),
    Break(
        "I2",
        "all changes of a commit share one revision",
        f"{_SERVER}/ingest/draft.py",
        "            self._revision += 1",
        "            self._revision = base_revision + 1",
        "tests/ingest/test_draft.py::test_what_is_committed_reads_back_as_it_was_appended",
    ),
    Break(
        "I3",
        "an append without a known part is acknowledged",
        f"{_SERVER}/services/agent_codec.py",
        'if not (is_opening or message.HasField("tail") or message.entries):',
        "if message.sequence < 0:",
        "tests/services/test_agent_codec.py::test_an_append_without_a_known_part_is_not_supported",
    ),
    Break(
        "I3",
        "an append is acknowledged before its commit",
        f"{_SERVER}/ingest/session.py",
        "        self._window.handed_over()",
        "        self._window.handed_over(); self.outbox.ack(self._window.received_sequence)",
        "tests/ingest/test_session.py::test_no_ack_comes_before_the_commit_and_nothing_is_readable",
    ),
    Break(
        "I3",
        "a commit with an unknown outcome is acknowledged",
        f"{_SERVER}/ingest/batches.py",
        '            _log.warning("commit.undecided", tasks=len(batch))',
        "            for writer, commit in batch: writer.committed(commit)\n"
        "            return {one.task_id: Outcome.COMMITTED for _, one in batch}",
        "tests/ingest/test_group_commit.py::"
        "test_nothing_is_acknowledged_while_the_store_is_away_and_later_commits_succeed",
    ),
    Break(
        "I4",
        "a commit does not check the fence",
        f"{_SERVER}/store/commit_statements.py",
        "AND h.fence = :fence AND h.revision = :base_revision AND h.generation = :generation",
        "AND h.revision = :base_revision AND h.generation = :generation",
        "tests/store/test_log_writes.py::test_a_commit_below_the_fence_writes_nothing",
    ),
    Break(
        "I4",
        "a commit does not check the revision",
        f"{_SERVER}/store/commit_statements.py",
        "AND h.fence = :fence AND h.revision = :base_revision AND h.generation = :generation",
        "AND h.fence = :fence AND h.generation = :generation",
        "tests/store/test_log_writes.py::test_a_commit_on_another_revision_writes_nothing",
    ),
    Break(
        "I4",
        "a session that lost its fence continues",
        f"{_SERVER}/ingest/batches.py",
        "                case _:\n",
        "                case Outcome.FENCED:\n"
        "                    writer.committed(commit)\n"
        "                case _:\n",
        "tests/ingest/test_session.py::"
        "test_a_fence_that_was_raised_elsewhere_ends_the_session_and_writes_nothing",
    ),
    Break(
        "I4",
        "a tick that is late takes a later session for lost",
        f"{_SERVER}/store/sessions.py",
        "session_serial BETWEEN 1 AND $2",
        "($2::bigint IS NOT NULL)",
        "tests/ingest/test_lost_sessions.py::test_a_late_tick_marks_no_session_that_began_after_it",
    ),
    Break(
        "I4",
        "a handshake that is under way passes for lost",
        f"{_SERVER}/ingest/lost_sessions.py",
        "        self._live.add(self._last_serial)",
        "        pass",
        "tests/ingest/test_lost_sessions.py::test_a_tick_during_a_handshake_does_not_mark_its_session",
    ),
    Break(
        "I5",
        "the head is written before the entries",
        f"{_SERVER}/store/log_writes.py",
        "                rows = await write_commits(connection, writable",
        "                await connection.executemany("
        "'UPDATE log_heads SET epoch = $2 WHERE task_id = $1',"
        " [(one.task_id, one.head.epoch) for one in ordered])\n"
        "                rows = await write_commits(connection, writable",
        "tests/store/test_log_writes.py::test_nothing_is_visible_before_the_commit",
    ),
    Break(
        "I5",
        "followers are told of a commit before it is committed",
        f"{_SERVER}/ingest/batches.py",
        "                outcomes = await self._writes.commit(",
        "                for _, one in batch: self._bus.publish(Moved(one.task_id, one))\n"
        "                outcomes = await self._writes.commit(",
        "tests/ingest/test_group_commit.py::test_followers_hear_of_a_commit_only_after_it",
    ),
    Break(
        "I6",
        "a sync is done before the appends that it depends on are committed",
        f"{_SERVER}/ingest/session.py",
        "rests_on=window.received_sequence,",
        "rests_on=0,",
        "tests/ingest/test_session.py::"
        "test_a_sync_is_done_when_the_appends_before_its_answer_are_committed",
    ),
    Break(
        "I6",
        "a caller joins a run that began before its call",
        f"{_SERVER}/concurrency/singleflight.py",
        "if current.next is None:",
        "if current.next is None and False:",
        "tests/concurrency/test_singleflight.py",
    ),
    Break(
        "I5",
        "a page in memory is served whatever version the log has",
        f"{_SERVER}/reads/pages.py",
        "        return state.version == self.version and state.task_id == self.task_id",
        "        return state.task_id == self.task_id",
        "tests/reads/test_stale_pages.py::"
        "test_a_change_that_another_process_commits_is_in_the_next_read",
    ),
    Break(
        "I5",
        "a page in memory is served for another task of its version",
        f"{_SERVER}/reads/pages.py",
        "        return state.version == self.version and state.task_id == self.task_id",
        "        return state.version == self.version",
        "tests/reads/test_pages.py::test_a_page_of_another_task_is_none_of_this_one",
    ),
    Break(
        "I5",
        "a version does not tell who wrote the head last",
        f"{_SERVER}/store/task_states.py",
        '            row["head_xmin"],',
        "            0,",
        "tests/reads/test_stale_pages.py::test_an_eviction_is_in_the_next_read",
    ),
    Break(
        "I6",
        "a read gets the state that another caller has noted",
        f"{_SERVER}/reads/reader.py",
        "        concerns(page.task_id)\n        return state, page",
        "        concerns(page.task_id)\n        return page.state, page",
        "tests/reads/test_stale_pages.py::"
        "test_a_read_gets_no_state_that_a_caller_with_an_earlier_check_has_noted",
    ),
    Break(
        "I9",
        "a version does not tell the generation",
        f"{_SERVER}/store/task_states.py",
        '            generation,\n            row["serves_since"],',
        '            "",\n            row["serves_since"],',
        "tests/store/test_task_states.py::"
        "test_a_state_and_a_page_that_are_read_together_have_one_version",
    ),
    Break(
        "I11",
        "a task whose rows are slow delays a check for each of its pages",
        f"{_SERVER}/reads/reader.py",
        "                self._cache.suspect(page.task_id)",
        "                page.is_steady = False",
        "tests/reads/test_stale_pages.py::test_a_task_whose_rows_are_slow_delays_others_once",
    ),
    Break(
        "I9",
        "a version does not tell which Postgres process answers",
        f"{_SERVER}/store/task_states.py",
        '            row["serves_since"],',
        "            datetime.min,",
        "tests/store/test_task_states.py::"
        "test_a_state_and_a_page_that_are_read_together_have_one_version",
    ),
    Break(
        "I9",
        "pages in memory stay when the store's history changes",
        f"{_SERVER}/bootstrap/service.py",
        "    store.generations.on_change(pages.clear)",
        "    del store",
        "tests/reads/test_stale_pages.py::test_after_a_failover_no_page_is_answered_from_memory",
    ),
    Break(
        "I6",
        "a caller joins a check of states that began before its call",
        f"{_SERVER}/reads/state_checks.py",
        "                found = await self._states.read(take)",
        "                found = await self._states.read(take)\n"
        "                for ref, (_, late) in self._take().items(): taken[ref][1].extend(late)",
        "tests/reads/test_state_checks.py::"
        "test_a_caller_joins_only_a_statement_that_begins_after_its_call",
    ),
    Break(
        "I6",
        "a live read is answered from a state that lacks what its sync brought",
        f"{_SERVER}/reads/reader.py",
        "            has_all = synced.is_held_by(known.stored)",
        "            has_all = True",
        "tests/reads/test_stale_pages.py::test_a_live_read_has_what_its_sync_brought",
    ),
    Break(
        "I10",
        "a live read is answered from a state of a store that has changed since",
        f"{_SERVER}/reads/reader.py",
        "            if has_all and self._is_current(known):",
        "            if has_all:",
        "tests/reads/test_stale_pages.py::"
        "test_a_live_read_whose_store_changed_during_its_sync_asks_it_again",
    ),
    Break(
        "I7",
        "pages in memory have no limit",
        f"{_SERVER}/reads/pages.py",
        "        while self.held_bytes > self._limit:",
        "        while False:",
        "tests/reads/test_pages.py::test_the_limit_in_bytes_holds_and_the_page_used_last_stays",
    ),
    Break(
        "I7",
        "a page in memory holds the request that it answered",
        f"{_SERVER}/reads/pages.py",
        "weakref.ref(query)",
        "lambda: query",
        "tests/reads/test_pages.py::test_a_page_in_memory_holds_no_request",
    ),
    Break(
        "I7",
        "a growing tail is held once for each range that reaches it",
        f"{_SERVER}/reads/pages.py",
        "        if page.has_tail_parts:",
        "        if False:",
        "tests/reads/test_pages.py::test_a_tail_in_parts_is_held_once",
    ),
    Break(
        "I11",
        "a task whose rows are corrupt fails the reads of all",
        f"{_SERVER}/reads/state_checks.py",
        "            is_of_one = isinstance(error, TimeoutError) or concerns_one_task(error)",
        "            is_of_one = False",
        "tests/reads/test_state_checks.py::"
        "test_a_task_whose_rows_are_corrupt_fails_no_reader_of_another",
    ),
    Break(
        "I6",
        "the agent answers a sync before it has sent what the task app showed",
        f"{_CLIENTS}/publish/session.py",
        "while self._answers and (self._answers[0].reason or not self._differ.has_changes):",
        "while self._answers:",
        "tests/publish/test_syncs.py::test_sync_done_comes_after_the_appends_that_it_rests_on",
    ),
    Break(
        "I7",
        "a sender does not wait at its window",
        f"{_SERVER}/ingest/session.py",
        "            await self._window.wait_for_capacity()",
        "            pass",
        "tests/ingest/test_session.py::test_a_sender_that_never_waits_is_held_at_its_window",
    ),
    Break(
        "I7",
        "the messages of all sessions have no limit together",
        f"{_SERVER}/limits/ingest_budget.py",
        "return self._held == 0 or self._held + size_bytes <= self._limit",
        "return True",
        "tests/ingest/test_session.py::test_all_sessions_together_stay_within_the_process_bound",
    ),
    Break(
        "I7",
        "every change is kept for a follower that does not read",
        f"{_SERVER}/reads/feed.py",
        "        self._last = Step(self.revision, revision, messages)",
        "        messages = [*(self._last.messages if self._last else ()), *messages];"
        " self._last = Step(self.revision, revision, messages)",
        "tests/reads/test_feed.py::"
        "test_a_follower_that_stops_reading_later_gets_the_latest_state_once",
    ),
    Break(
        "I7",
        "a follow that waits for room keeps the messages that it made",
        f"{_SERVER}/reads/follower.py",
        "                    ready = None\n",
        "",
        "tests/reads/test_waiting_follows.py::test_follows_that_wait_for_room_hold_no_message",
    ),
    Break(
        "I7",
        "every change wakes the follows that wait for room",
        f"{_SERVER}/reads/follower.py",
        "                    with self._feed.wakes_less(self._woken):",
        "                    if True:",
        "tests/reads/test_waiting_follows.py::"
        "test_follows_that_wait_for_room_are_not_woken_by_changes",
    ),
    Break(
        "I7",
        "followers that do not read hold messages without a limit",
        f"{_SERVER}/middleware/unsent_messages.py",
        "        return of_all < limit * _SHARE and of_caller < limit * _CALLER_SHARE",
        "        return True",
        "tests/middleware/test_unsent_messages.py::"
        "test_followers_that_read_nothing_hold_no_more_than_their_part",
    ),
    Break(
        "I7",
        "a caller that reads waits behind the streams of another that does not",
        f"{_SERVER}/middleware/unsent_messages.py",
        "_CALLER_SHARE = 0.25",
        "_CALLER_SHARE = 1.0",
        "tests/middleware/test_unsent_messages.py::"
        "test_a_caller_that_reads_does_not_wait_behind_the_streams_of_another",
    ),
    Break(
        "I7",
        "a call that has just ended is reset, and gRPC fills the log with errors",
        f"{_SERVER}/transport/grpc_workarounds.py",
        "frozenset(call for call in calls if not call.done())",
        "frozenset(calls)",
        "tests/transport/test_grpc_workarounds.py::"
        "test_a_call_that_has_just_ended_is_reset_without_a_word",
    ),
    Break(
        "I7",
        "a follow that takes nothing is never ended",
        f"{_SERVER}/middleware/responses.py",
        "        is_late()\n",
        "",
        "tests/middleware/test_unsent_messages.py::"
        "test_a_stream_whose_caller_takes_nothing_ends_with_the_limit",
    ),
    Break(
        "I7",
        "the requests of refused calls are kept until a garbage collection",
        f"{_SERVER}/middleware/failures.py",
        "        one.__traceback__ = None\n",
        "",
        "tests/middleware/test_memory_of_ended_calls.py::test_a_call_that_has_ended_holds_nothing",
    ),
    Break(
        "I7",
        "a follow that reads slowly is ended for those that wait",
        f"{_SERVER}/middleware/responses.py",
        "            if unread.bytes and among(unread) and not is_spared:",
        "            if unread.bytes and among(unread):",
        "tests/middleware/test_unsent_messages.py::"
        "test_a_follower_that_reads_slowly_is_not_ended_for_those_that_wait",
    ),
    Break(
        "I7",
        "the feed of an idle task keeps the tail",
        f"{_SERVER}/reads/feed.py",
        "            self._fold.release()",
        "            pass",
        "tests/reads/test_feed_memory.py::test_the_feeds_of_30_idle_tasks_hold_no_tail",
    ),
    Break(
        "I6",
        "a later page leaves out a tail with parts",
        f"{_SERVER}/store/later_pages.py",
        'if not (row["goes_on"] or row["reaches_tail"]) or len(self.encoded) >= rows:',
        'if not row["goes_on"] or len(self.encoded) >= rows:',
        "tests/store/test_log_reads.py::test_pages_by_bytes_hold_each_entry_once",
    ),
    Break(
        "I8",
        "a resumed follow begins one revision late",
        f"{_SERVER}/reads/follower.py",
        "        return task, query.cursor.revision",
        "        return task, min(query.cursor.revision + 1, task.head.revision)",
        "tests/reads/test_follow_ends.py::"
        "test_every_cursor_of_a_stream_resumes_without_gap_or_repeat",
    ),
    Break(
        "I8",
        "a resumed follow begins one revision early",
        f"{_SERVER}/reads/follower.py",
        "        return task, query.cursor.revision",
        "        return task, max(query.cursor.revision - 1, 0)",
        "tests/reads/test_follow_ends.py::"
        "test_every_cursor_of_a_stream_resumes_without_gap_or_repeat",
    ),
    Break(
        "I8",
        "a delta goes to a follower that holds another base",
        f"{_SERVER}/reads/follower.py",
        "as_delta = self._query.deltas and event.delta is not None and ready.last_sent == base",
        "as_delta = self._query.deltas and event.delta is not None",
        "tests/reads/test_feed.py::test_random_commits_and_followers_end_in_one_view",
    ),
    Break(
        "I8",
        "a delta whose result has another checksum is applied",
        f"{_CLIENTS}/log/content.py",
        "        if crc32 is not None and found != crc32:",
        "        if False:",
        "tests/client/test_follow.py::test_a_delta_that_does_not_fit_is_never_applied",
    ),
    Break(
        "I8",
        "a follower that did not ask for it gets messages compressed",
        f"{_SERVER}/reads/follower.py",
        "compressed=self._query.compressed)",
        "compressed=True)",
        "tests/system/end_to_end/test_screens.py::"
        "test_a_follower_that_does_not_ask_for_it_gets_nothing_compressed",
    ),
    Break(
        "I8",
        "the end of a cursor leaves out what may differ",
        f"{_SERVER}/reads/tokens.py",
        'if self.revision < _HIGH_HALF else ""',
        "if True else None",
        "tests/reads/test_follow_encoding.py::test_a_cursor_is_its_end_behind_any_earlier_cursor",
    ),
    Break(
        "I7",
        "a compressed message is expanded as far as it goes",
        f"{_CLIENTS}/compression.py",
        "            part = self._zlib.decompress(self._rest, most_bytes)",
        "            part = self._zlib.decompress(self._rest)",
        "tests/client/test_compression.py::test_a_bomb_is_expanded_no_further_than_it_claims",
    ),
    Break(
        "I3",
        "an agent compresses for a server that does not name it",
        f"{_CLIENTS}/publish/session.py",
        "        if is_append and self._features.compressed_messages:",
        "        if is_append:",
        "tests/publish/test_features.py::test_only_a_server_that_names_it_gets_compressed_messages",
    ),
    Break(
        "I1",
        "a restarted agent takes one conversation for another that begins alike",
        f"{_CLIENTS}/agent/sources/transcript.py",
        "                    self.begins()",
        "                    self._begins()",
        "tests/agent/sources/test_jsonl.py::"
        "test_conversations_that_begin_alike_are_not_repeated_after_a_restart",
    ),
    Break(
        "I1",
        "a restarted agent does not know an answer that has grown since",
        f"{_CLIENTS}/agent/sources/resume.py",
        "        if grows and stored.is_extended_by(fitted):",
        "        if not grows and stored.is_extended_by(fitted):",
        "tests/agent/sources/test_aider.py::test_an_answer_that_grew_while_no_agent_ran_goes_on",
    ),
    Break(
        "I4",
        "a publisher continues a log that another program has changed",
        f"{_CLIENTS}/publish/journal.py",
        "        if self._epochs and not self._epochs[0].begin_session(listener.stored):",
        "        if self._epochs and self._epochs[0].begin_session(listener.stored) is None:",
        "tests/publish/test_publisher_faults.py::"
        "test_two_programs_with_one_token_do_not_mix_their_entries",
    ),
    Break(
        "I1",
        "what an ACP agent repeats of a loaded session is added to the log",
        f"{_CLIENTS}/agent/sources/acp/source.py",
        "                self._replay = Replay(self._spoken) if is_own else None",
        "                self._replay = None",
        "tests/agent/sources/acp/test_replay.py::test_what_is_repeated_is_not_added",
    ),
    Break(
        "I1",
        "a restarted agent takes a growing entry for another",
        f"{_CLIENTS}/agent/sources/resume.py",
        "            change = self._tail.extend if extends else self._tail.replace",
        "            change = self._tail.replace",
        "tests/agent/sources/acp/test_restart.py::"
        "test_an_agent_that_restarts_goes_on_in_an_answer_that_grows",
    ),
    Break(
        "I6",
        "a live read does not wait for the lines that are in the file",
        f"{_CLIENTS}/agent/sources/transcript.py",
        "        await request",
        "        request.cancel()",
        "tests/agent/sources/test_jsonl.py::test_a_live_read_has_every_line_that_was_in_the_file",
    ),
    Break(
        "I7",
        "a publisher holds whatever it is given",
        f"{_CLIENTS}/publish/journal.py",
        "        await self.until(lambda: self.held_bytes < self._most_bytes)",
        "        await self.until(lambda: True)",
        "tests/publish/test_publisher_faults.py::"
        "test_what_waits_is_bounded_while_the_server_is_slow",
    ),
    Break(
        "I1",
        "the agent forgets tails that the store may still hold, and so opens a new epoch",
        f"{_CLIENTS}/publish/sent_tails.py",
        "= deque(maxlen=_MOST_TAILS)",
        "= deque(maxlen=2)",
        "tests/publish/test_sent_tails.py::"
        "test_the_store_may_hold_any_tail_of_the_appends_that_wait_for_one_ack",
    ),
    Break(
        "I8",
        "all parts of a long message have its last cursor",
        f"{_SERVER}/reads/feed.py",
        "        return [Message(Cursor(task_id, part.revision), part) for part in parts]",
        "        return [Message(self.cursor, part) for part in parts]",
        "tests/reads/test_follow_encoding.py::"
        "test_a_long_history_of_screens_becomes_messages_that_can_be_compressed",
    ),
    Break(
        "I3",
        "a change of the tail in an unknown form is acknowledged, and empties the tail",
        f"{_SERVER}/services/agent_codec.py",
        '            raise Unsupported("the form of this change of the tail (append.tail)")',
        '            return Delta.keeping(0, b""), 0',
        "tests/services/test_task_agents.py::"
        "test_a_change_of_the_tail_in_an_unknown_form_is_refused_and_stores_nothing",
    ),
    Break(
        "I7",
        "a log grows past its limits",
        f"{_SERVER}/ingest/session.py",
        "        if not log_limiter.fits(",
        "        if False and not log_limiter.fits(",
        "tests/ingest/test_log_limits.py::test_a_log_that_grows_past_its_entries_loses_the_oldest",
    ),
    Break(
        "I7",
        "an agent evicts young entries by writing",
        f"{_SERVER}/store/evictions.py",
        "$8 AND o.is_old))",
        "$8))",
        "tests/store/test_evictions.py::test_nothing_younger_than_the_retention_is_evicted",
    ),
    Break(
        "I7",
        "the names of entries take no room in the window of a session",
        f"{_SERVER}/ingest/messages.py",
        "    return append.size_bytes + _COST_BYTES * (pieces + len(append.entries))",
        "    return append.content_bytes + _COST_BYTES * (pieces + len(append.entries))",
        "tests/ingest/test_messages.py::test_the_names_of_an_entry_take_room_in_the_window",
    ),
    Break(
        "I7",
        "the names of entries do not count in a conversation that is uploaded in parts",
        f"{_SERVER}/ingest/upload.py",
        "        self._size_bytes += sum(entry.size_bytes for entry in entries)",
        "        self._size_bytes += sum(len(entry.content) for entry in entries)",
        "tests/services/test_upload_parts.py::test_names_count_for_the_size_of_a_conversation",
    ),
    Break(
        "I7",
        "an append with long names is longer than its limit",
        f"{_CLIENTS}/publish/differ.py",
        "    return entry.size_bytes + _ENTRY_OVERHEAD_BYTES",
        "    return len(entry.content) + _ENTRY_OVERHEAD_BYTES",
        "tests/publish/test_differ.py::"
        "test_no_message_with_several_entries_is_above_the_limit_because_of_their_names",
    ),
    Break(
        "I1",
        "the tail is evicted",
        f"{_SERVER}/store/evictions.py",
        "OR e.ordinal < head.entries - 2",
        "OR e.ordinal < head.entries",
        "tests/store/test_evictions.py::test_commits_continue_at_their_revision_after_an_eviction",
    ),
    Break(
        "I8",
        "a cursor before the evicted entries resumes after a gap",
        f"{_SERVER}/reads/follower.py",
        "        if query.cursor.revision < task.head.evicted.revision:",
        "        if False:",
        "tests/reads/test_evicted.py::"
        "test_a_cursor_before_evicted_changes_expires_and_the_error_has_the_oldest_valid_one",
    ),
    Break(
        "I8",
        "a follower that lags skips evicted entries silently",
        f"{_SERVER}/reads/follower.py",
        "        if revision < read.task.head.evicted.revision:",
        "        if False:",
        "tests/reads/test_evicted.py::"
        "test_a_lagging_follower_ends_when_entries_it_was_not_sent_are_evicted",
    ),
    Break(
        "I8",
        "a feed skips evicted entries silently",
        f"{_SERVER}/reads/feed.py",
        "            if self.revision < read.task.head.evicted.revision:",
        "            if False:",
        "tests/reads/test_evicted.py::"
        "test_a_feed_that_missed_an_eviction_takes_no_follower_over_the_gap",
    ),
    Break(
        "I8",
        "a follow of some types does not get the withdrawals of their entries",
        f"{_SERVER}/reads/follow_events.py",
        "            return event if event.type is None or event.type in types else None",
        "            return event if event.type is None else None",
        "tests/reads/test_follow_types.py::"
        "test_a_follow_of_some_types_sends_the_follow_of_all_types_filtered",
    ),
    Break(
        "I8",
        "an entry keeps the type of the withdrawn entry in whose place it is",
        f"{_SERVER}/store/commit_statements.py",
        "committed_at = excluded.committed_at, type = excluded.type\n    RETURNING",
        "committed_at = excluded.committed_at\n    RETURNING",
        "tests/store/test_types.py::"
        "test_an_entry_of_another_type_takes_the_place_of_a_withdrawn_one",
    ),
    Break(
        "I9",
        "the first writer of a generation uses the revisions of the lost history again",
        f"{_SERVER}/store/sessions.py",
        "revision = revision + {GENERATION_GAP} * {_GAPS},",
        "revision = revision,",
        "tests/store/test_generations.py::"
        "test_the_first_writer_of_a_generation_jumps_the_revision_and_later_ones_do_not",
    ),
    Break(
        "I9",
        "the fences of a lost history are given out again",
        f"{_SERVER}/store/sessions.py",
        "SET fence = fence + greatest({GENERATION_GAP} * {_GAPS}, 1),",
        "SET fence = fence + 1,",
        "tests/ingest/test_generations.py::"
        "test_a_session_is_not_superseded_by_one_of_the_lost_history_that_is_still_leaving",
    ),
    Break(
        "I9",
        "the first writer of a generation uses the revisions of one that its store never had",
        f"{_SERVER}/store/sessions.py",
        "                ELSE least(greatest({_TIMELINES}, 1), 100)\n",
        "                ELSE 1\n",
        "tests/store/test_generations.py::"
        "test_the_jump_also_passes_the_revisions_of_generations_that_the_store_never_had",
    ),
    Break(
        "I9",
        "a cursor where two gaps meet is valid",
        f"{_SERVER}/store/sessions.py",
        "generate_series(0, least(number, 1))",
        "generate_series(0, 0)",
        "tests/store/test_generations.py::"
        "test_the_jump_also_passes_the_revisions_of_generations_that_the_store_never_had",
    ),
    Break(
        "I9",
        "cursors of a lost history are valid once the log has grown past them",
        f"{_SERVER}/store/records.py",
        "        last < revision < last + GENERATION_GAP for last in lost_after",
        "        False for last in lost_after",
        "tests/reads/test_generations.py::"
        "test_a_cursor_in_a_gap_expires_and_those_at_its_ends_do_not",
    ),
    Break(
        "I9",
        "page tokens of a lost history are valid",
        f"{_SERVER}/reads/reader.py",
        "        if page.has_lost(token.revision):",
        "        if False:",
        "tests/reads/test_generations.py::"
        "test_page_tokens_of_a_lost_history_expire_and_earlier_ones_do_not",
    ),
    Break(
        "I9",
        "a feed continues from a revision of a lost history",
        f"{_SERVER}/reads/feed.py",
        "        if read.task.head.has_lost(self.revision):",
        "        if False:",
        "tests/reads/test_generations.py::"
        "test_a_follower_and_a_feed_whose_revision_is_in_a_gap_end",
    ),
    Break(
        "I9",
        "follows continue after a change of the generation",
        f"{_SERVER}/reads/follower.py",
        "            feed.end(StoreUnavailable(RETRY_AFTER))",
        "            pass",
        "tests/reads/test_generations.py::"
        "test_a_change_of_the_generation_ends_all_follows_so_that_their_clients_resume",
    ),
    Break(
        "I9",
        "a commit does not compare the generation of the head",
        f"{_SERVER}/store/commit_statements.py",
        "h.revision = :base_revision AND h.generation = :generation",
        "h.revision = :base_revision AND :generation::text IS NOT NULL",
        "tests/store/test_generations.py::"
        "test_a_commit_on_a_head_of_another_generation_writes_nothing",
    ),
    Break(
        "I9",
        "a writer of a former generation commits to the new one",
        f"{_SERVER}/store/log_writes.py",
        "[one for one in ordered if one.head.generation == current]",
        "[one for one in ordered if current is not None]",
        "tests/store/test_generations.py::"
        "test_a_writer_of_a_former_generation_writes_nothing_and_others_do",
    ),
    Break(
        "I9",
        "sessions continue after a change of the generation",
        f"{_SERVER}/ingest/sessions.py",
        "list(self._open.values()):\n            session.end(SessionLost())",
        "list(self._open.values()):\n            pass",
        "tests/ingest/test_generations.py::"
        "test_all_sessions_end_and_the_next_ones_start_again_from_welcome",
    ),
    Break(
        "I9",
        "a handshake of a former generation becomes a session",
        f"{_SERVER}/ingest/sessions.py",
        "        if session.generation != self._generations.current:",
        "        if False:",
        "tests/ingest/test_generations.py::"
        "test_a_handshake_that_the_change_overtakes_is_no_session",
    ),
    Break(
        "I9",
        "a former primary that still answers is used",
        f"{_SERVER}/store/generations.py",
        "        if generation is None or _is_older(generation, self._current):",
        "        if generation is None:",
        "tests/store/test_generations.py::"
        "test_a_former_primary_and_a_standby_are_refused_and_change_nothing",
    ),
    Break(
        "I10",
        "a live read is answered whatever the store has become",
        f"{_SERVER}/reads/reader.py",
        "            if synced.is_held_by(state.stored):",
        "            if synced is not None:",
        f"{_ELSEWHERE}::test_a_live_read_does_not_rest_on_a_session_that_has_ended_elsewhere",
    ),
    Break(
        "I10",
        "a session counts with any fence",
        f"{_SERVER}/domain/synced.py",
        "            stored.fence == self.fence\n            and stored",
        "            stored",
        "tests/domain/test_synced.py",
    ),
    Break(
        "I10",
        "a store that is behind the sync is enough",
        f"{_SERVER}/domain/synced.py",
        "            and stored.revision >= self.revision\n",
        "",
        "tests/domain/test_synced.py",
    ),
    Break(
        "I10",
        "a sync forgets what was committed for it",
        f"{_SERVER}/ingest/session.py",
        "        self.revision = commit.head.revision",
        "        pass",
        "tests/ingest/test_session_audit.py::test_a_sync_returns_the_revision_that_it_rests_on",
    ),
    Break(
        "I10",
        "a follow has caught up with a store that lost what its sync brought",
        f"{_SERVER}/reads/follower.py",
        "if feed.error is not None or synced.is_held_by(feed.stored):",
        "if synced is not None:",
        f"{_ELSEWHERE}::test_a_follow_is_caught_up_only_with_a_session_that_the_store_names",
    ),
    Break(
        "I10",
        "a session of another process goes on although the store lacks what it committed",
        f"{_SERVER}/ingest/syncs.py",
        "            self._syncs.elsewhere.doubt(self.task_id, self._found_in)",
        "            pass",
        "tests/system/faults/test_other_processes.py::"
        "test_a_live_read_does_not_rest_on_what_a_process_has_lost",
    ),
    Break(
        "I8",
        "a lost note between processes is not noticed",
        f"{_SERVER}/bus/peers.py",
        "return last is not None and number > last + 1",
        "return False",
        "tests/bus/test_conformance.py::test_a_lost_payload_is_a_gap_also_where_no_other_follows",
    ),
    Break(
        "I8",
        "the loss of the last note to a process is not noticed",
        f"{_SERVER}/bus/peers.py",
        "if number is None or self.told_at >= before:",
        "if True:",
        "tests/bus/test_conformance.py::test_a_lost_payload_is_a_gap_also_where_no_other_follows",
    ),
    Break(
        "I8",
        "what a process follows while it joins is told to nobody",
        f"{_SERVER}/bus/shared.py",
        "        if self._may_be_heard:\n            self._outbox.follow_changed",
        "        if self._peers:\n            self._outbox.follow_changed",
        "tests/bus/test_conformance.py::"
        "test_what_a_process_follows_before_others_have_answered_it_is_told",
    ),
    Break(
        "I8",
        "a process is told nothing of changes just before it follows a task",
        f"{_SERVER}/bus/shared.py",
        "                if task_id in recent:",
        "                if False:",
        "tests/bus/test_conformance.py::"
        "test_a_process_that_follows_a_task_hears_of_a_change_just_before",
    ),
    Break(
        "I8",
        "the end of a list of very many tasks that a process follows is taken for all of it",
        f"{_SERVER}/bus/interests.py",
        "        if is_saying:",
        "        if False:",
        "tests/bus/test_hostile_senders.py::"
        "test_the_end_of_a_list_that_is_too_long_is_not_taken_for_all_of_it",
    ),
    Break(
        "I10",
        "the audit misses a fence that was raised elsewhere",
        f"{_SERVER}/store/session_audit.py",
        "        OR head.fence IS DISTINCT FROM held.fence\n",
        "",
        "tests/store/test_session_audit.py::"
        "test_each_end_elsewhere_is_returned_for_its_session_only",
    ),
    Break(
        "I10",
        "the audit misses a store that went back",
        f"{_SERVER}/store/session_audit.py",
        "        OR head.revision < held.revision\n",
        "",
        "tests/store/test_session_audit.py::"
        "test_each_end_elsewhere_is_returned_for_its_session_only",
    ),
    Break(
        "I4",
        "a superseded session still reports",
        f"{_SERVER}/ingest/sessions.py",
        "change, fence=session.fence)",
        "change)",
        f"{_ELSEWHERE}::test_a_report_of_a_session_that_has_ended_elsewhere_changes_nothing",
    ),
    Break(
        "I11",
        "commits of a held task stay in the batches",
        f"{_SERVER}/ingest/group_commit.py",
        "            else:\n                self._held.add(writer, commit)",
        "            else:\n                self._again.append((writer, commit)); self._wake.set()",
        "tests/ingest/test_group_commit.py::test_followers_hear_of_a_commit_only_after_it",
    ),
    Break(
        "I11",
        "large changes stay in the batches",
        f"{_SERVER}/ingest/group_commit.py",
        "            elif writer.pending_bytes > LARGE_BYTES:",
        "            elif False:",
        "tests/ingest/test_large_changes.py::"
        "test_large_senders_take_turns_and_what_waits_coalesces",
    ),
    Break(
        "I11",
        "large rows of small changes stay in the batches",
        f"{_SERVER}/ingest/group_commit.py",
        "            elif commit.size_bytes > LARGE_BYTES:",
        "            elif False:",
        "tests/ingest/test_large_changes.py::test_a_small_change_that_writes_a_large_row_is_large",
    ),
    Break(
        "I4",
        "a session has changes in two transactions at once",
        f"{_SERVER}/ingest/group_commit.py",
        "if self._held.has(writer) or self._large.has(writer):",
        "if self._held.has(writer):",
        "tests/ingest/test_large_changes.py::"
        "test_a_writer_with_a_large_commit_under_way_is_not_asked_again",
    ),
    Break(
        "I11",
        "a batch in which a row is held fails as a whole",
        f"{_SERVER}/store/log_writes.py",
        "                if is_row_held(error):\n                    waits_left -= 1",
        "                if False:\n                    waits_left -= 1",
        f"{_HELD_ROWS}::test_a_held_row_ends_no_stream_and_delays_only_its_own_task",
    ),
    Break(
        "I11",
        "a batch waits for any number of locks",
        f"{_SERVER}/store/log_writes.py",
        "            if waits_left == 0:",
        "            if False:",
        "tests/store/test_log_writes.py::"
        "test_a_batch_waits_for_few_locks_where_a_whole_table_is_locked",
    ),
    Break(
        "I11",
        "held sessions keep the bytes that others wait for",
        f"{_SERVER}/ingest/held_commits.py",
        "is_in_the_way = self._is_short and",
        "is_in_the_way = False and",
        f"{_HELD_ROWS}::test_a_held_session_ends_where_others_wait_for_its_bytes",
    ),
    Break(
        "I11",
        "confirmed times wait for a held head",
        f"{_SERVER}/store/log_writes.py",
        "SELECT task_id FROM log_heads WHERE task_id = $1 FOR UPDATE SKIP LOCKED\n    ), written",
        "SELECT task_id FROM log_heads WHERE task_id = $1 FOR UPDATE\n    ), written",
        f"{_HELD_ROWS}::test_a_held_head_delays_no_other_confirmed_time_and_no_release_of_tails",
    ),
    Break(
        "I11",
        "callers of a held task wait on the connections of readers",
        f"{_SERVER}/store/task_transactions.py",
        "; SET LOCAL lock_timeout = '50ms'",
        "",
        f"{_HELD_ROWS}::test_callers_of_a_held_task_leave_the_connections_to_readers",
    ),
    Break(
        "I11",
        "an agent of a held task keeps its turn",
        f"{_SERVER}/ingest/sessions.py",
        "            return await self._shake_hands_uncancelled(task_id, hello)",
        "            return await retry_while_held("
        "lambda: self._shake_hands_uncancelled(task_id, hello))",
        f"{_HELD_ROWS}::test_an_agent_of_a_held_task_gives_its_turn_back",
    ),
    Break(
        "I11",
        "an upload of a held task keeps its turn",
        f"{_SERVER}/ingest/upload.py",
        "                turn.end()",
        "                pass",
        f"{_HELD_ROWS}::test_uploads_of_held_tasks_leave_their_turns_and_places_to_others",
    ),
    Break(
        "I11",
        "a loss that Postgres refused once is forgotten",
        f"{_SERVER}/store/sessions.py",
        "if one.again_at > now)",
        "if True)",
        "tests/store/test_sessions.py::"
        "test_a_loss_that_was_refused_is_tried_again_less_and_less_often",
    ),
    Break(
        "I11",
        "a purge waits for the row of a locked task",
        f"{_SERVER}/store/purges.py",
        "WHERE task_id = $1 AND deleted_at IS NOT NULL FOR UPDATE SKIP LOCKED",
        "WHERE task_id = $1 AND deleted_at IS NOT NULL FOR UPDATE",
        "tests/store/test_purges.py::test_a_purge_waits_for_no_lock_of_the_task_itself",
    ),
    Break(
        "I11",
        "a purge waits for a locked entry",
        f"{_SERVER}/store/purges.py",
        "r.xmax <> '0'::xid AS is_touched",
        "false AS is_touched",
        "tests/store/test_purges.py::test_a_locked_row_is_left_and_the_others_are_purged",
    ),
    Break(
        "I11",
        "a retirement waits for a commit",
        f"{_SERVER}/store/retirements.py",
        "FROM log_heads WHERE task_id = $1 FOR UPDATE SKIP LOCKED",
        "FROM log_heads WHERE task_id = $1 FOR UPDATE",
        "tests/store/test_retirements.py::"
        "test_a_commit_under_way_keeps_the_task_and_nothing_waits_for_it",
    ),
    Break(
        "I11",
        "tasks of which nothing was purged yet wait for those that have begun",
        f"{_SERVER}/tasks/purge.py",
        "if self._new and (self._takes_new or not self._begun):",
        "if self._new and not self._begun:",
        "tests/tasks/test_purge.py::test_small_tasks_wait_for_no_large_ones",
    ),
)
