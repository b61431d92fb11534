from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tasklogs_server.process.lifecycle import StoppedEarly, StopSignals
from tests.support.fixtures.conditions import until


async def test_a_signal_after_a_request_to_stop_is_the_first_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    actions: list[str] = []
    with StopSignals() as signals:
        signals.on_abort(lambda: actions.append("aborted"))
        signals.request()
        assert signals.stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: signals._has_received)
        signals.request()
        assert not actions
        assert not ended
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: bool(ended))
    assert (actions, ended) == (["aborted"], [1])


async def test_a_start_that_is_to_stop_is_cancelled_once() -> None:
    async def start(signals: StopSignals) -> None:
        async with signals.while_starting():
            signals.request()
            try:
                await asyncio.Event().wait()
            finally:
                signals.request()
                await asyncio.sleep(0)

    with StopSignals() as signals, pytest.raises(StoppedEarly):
        await start(signals)


async def test_sighup_asks_to_stop_and_is_no_second_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        await until(signals.stop.is_set)
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: signals._has_received)
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
        assert not ended
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


async def test_sighup_stays_ignored_under_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            await until(signals.stop.is_set)
            assert signals._has_received
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
