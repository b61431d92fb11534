"""Tasks that are listed page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Self

from tasklogs.client.page import Page
from tasklogs.client.task import Task


class TaskList:
    """An async iterator over tasks; made by `TaskLogsClient.list_tasks`.

    Iterate over it, or over its `pages`, once. Nothing is requested before. The iteration raises
    the errors of a call.
    """

    def __init__(self, pages: AsyncIterator[Page[Task]]) -> None:
        self._pages = pages
        self._tasks = self._each()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Task:
        return await anext(self._tasks)

    def pages(self) -> AsyncIterator[Page[Task]]:
        """Return the iterator over the pages."""
        return self._pages

    async def _each(self) -> AsyncIterator[Task]:
        async for page in self._pages:
            for task in page:
                yield task
