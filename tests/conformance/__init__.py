"""One suite for the client libraries of all languages: the same servers, the same expectations.

Each language has a driver, a program that follows logs as it is told. It reads one JSON object a
line:

    target, task         what to follow
    cursor, tail         where to begin
    tokens               what the token function returns: one at each call, then the last one
    progress             whether to yield Progress
    until_status, until_events     when to leave
    first_wait_ms, most_wait_ms    the waits between attempts

For each it prints one JSON object a line: `event` is status, entries, withdrawn, epoch, caught_up
or progress, with a `cursor`; reconnecting or reconnected; and last, error or left. `appended` is
null if the content that was yielded before did not only grow.
"""
