"""An event loop in a thread of its own, for programs that have none.

A signal handler (Ctrl-C, an alarm) can raise in a waiting thread, at nearly any instruction. So the
waiting thread and the loop share only locks that such an exception cannot leave acquired. It could
leave those of threading.Event and concurrent.futures.Future acquired, and the loop would hang.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

from tasklogs.errors import ClientClosed

T = TypeVar("T")

_IN_CALLBACK = (
    "a function that the client or the publisher calls cannot use it: it would wait for itself"
)
_FORKED = (
    "this process was forked after a client was opened, and gRPC does not work after a fork: fork "
    "before you open a client, or start the process with `spawn` (multiprocessing)"
)


class Job(Generic[T]):
    """Work of the loop, for whose result another thread waits."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._work = work
        self._task: asyncio.Task[T] | None = None
        self._running = threading.Lock()
        self._running.acquire()
        self.done = False

    def start(self) -> asyncio.Task[T] | None:
        """Begin, in the thread of the loop. Return None if it has begun before, or never will."""
        if self._task is not None or self.done:
            return None
        self._task = asyncio.get_running_loop().create_task(_run(self._work))
        self._task.add_done_callback(self._finish)
        return self._task

    def cancel(self) -> None:
        """Cancel it, in the thread of the loop. If it has not begun, it never does."""
        if self._task is None:
            self.end()
        else:
            self._task.cancel()

    def end(self) -> None:
        """Wake the thread that waits."""
        if not self.done:
            self.done = True
            self._running.release()

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Wait until it is done, in another thread. Raises TimeoutError, and goes on then."""
        longest = -1 if timeout_seconds is None else min(timeout_seconds, threading.TIMEOUT_MAX)
        # An exception after `acquire` leaves the lock acquired, but then the job is done.
        if not self.done and not self._running.acquire(timeout=longest):
            raise TimeoutError

    @property
    def error(self) -> BaseException | None:
        """What it raised, when it is done. ClientClosed if it was cancelled or not begun."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            return ClientClosed()
        return self._task.exception()

    def result(self) -> T:
        """Return its result, when it is done without an error."""
        assert self._task is not None
        return self._task.result()

    def _finish(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # asyncio logs an exception that nobody retrieved
        self.end()


class LoopThread:
    """An event loop that runs in a thread, from `start` to `stop`, once."""

    _process: int | None = None
    """The process in which the first one was started."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._serve, name="tasklogs client", daemon=True)
        # Those that are not done: their threads wait.
        self._jobs: set[Job[Any]] = set()
        self._stopped = False

    def start(self) -> None:
        """Start the thread and its loop. Raises RuntimeError after a fork."""
        if LoopThread._process is None:
            LoopThread._process = os.getpid()
        self.check_caller()
        self._loop = asyncio.new_event_loop()
        try:
            self._thread.start()
        except BaseException:
            if not self._thread.is_alive():
                self._loop.close()
            raise

    @property
    def running(self) -> bool:
        """Whether it runs, in this process."""
        return self._thread.is_alive() and not self._stopped

    @property
    def inherited(self) -> bool:
        """Whether this process was forked from the one that started it."""
        return os.getpid() != LoopThread._process

    def check_caller(self) -> None:
        """Raise RuntimeError in the loop's own thread and after a fork: who waits there hangs."""
        if self.inherited:
            raise RuntimeError(_FORKED)
        # Not by its number: another thread may get that of a loop that has ended.
        if threading.current_thread() is self._thread:
            raise RuntimeError(_IN_CALLBACK)

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `work` on the loop and return its result.

        An exception of a signal handler cancels the work. Raises ClientClosed if the loop stops,
        and RuntimeError in its own thread and after a fork.
        """
        job = Job(work)
        try:
            self.submit(job)
            job.wait()
        except BaseException:
            self.cancel(job)
            raise
        raise_error_of(job)
        return job.result()

    def submit(self, job: Job[Any]) -> None:
        """Let the loop start `job`. For a job that was submitted before it does nothing.

        Raises what `run` raises.
        """
        self.check_caller()
        if job.done:
            return
        # The last act of the thread is to end all jobs of this set. So the order matters here: a
        # job is in the set before this looks whether the thread has stopped.
        self._jobs.add(job)
        if not self._stopped:
            with suppress(RuntimeError):  # the loop was closed right now
                self._loop.call_soon_threadsafe(self._start, job)
                return
        self._jobs.discard(job)
        raise ClientClosed

    def cancel(self, job: Job[Any]) -> None:
        """Cancel `job` and do not wait. May be called in any thread, also in `__del__`."""
        if not self.inherited:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(job.cancel)

    def stop(self) -> None:
        """Cancel running work and wait for its end. Stopping twice does nothing."""
        self.check_caller()
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()

    # The rest runs in the thread.

    def _serve(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_end_others())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._stopped = True
            self._loop.close()
            for job in tuple(self._jobs):
                job.end()

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._loop.stop()

    def _start(self, job: Job[Any]) -> None:
        if self._stopped:
            job.end()
        task = job.start()
        if task is not None:
            task.add_done_callback(lambda _: self._jobs.discard(job))
        elif job.done:
            self._jobs.discard(job)


async def _run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    # No method of the job: a traceback that refers to the job would keep alive what it reads.
    return await work()


def raise_error_of(job: Job[Any]) -> None:
    """Raise the error of `job`, if it has one."""
    error = job.error
    if error is not None:
        try:
            raise error
        finally:
            del error  # its traceback has this frame


async def _end_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
