"""The reasons of errors: as a section of the API reference, and as JSON for other languages."""

from __future__ import annotations

import json

from tasklogs.reasons import DOMAIN, REASONS, Retry

_TITLE = "Errors: code, reason, retry"
_SECTION = f"""## {_TITLE}

Each error that the server sends has `google.rpc.Status` details. One of them is `ErrorInfo` with
the domain `{DOMAIN}` and one of these reasons. For programs, the same table is in
[reasons.json](../protos/tasklogs/v1/reasons.json). Reasons may be added: treat one that you do not
know by its code.

`retry` says whether the same call may succeed if it is made again:

- `{Retry.NO}`: only after something else has changed, such as the request, the credentials or the
  task.
- `{Retry.NOW}`: at once: the same call, or a new stream, cannot do harm. Wait longer each
  time it fails again.
- `{Retry.AFTER}`: after the time in `RetryInfo`, which such an error always has.

{{rows}}

An error without `ErrorInfo` of this domain does not come from TaskLogs' own code. gRPC, a proxy or
the client made it:

- UNAVAILABLE: there is no connection, or it was lost. A read may be repeated. A write may have been
  made.
- DEADLINE_EXCEEDED, CANCELLED: the caller's own deadline passed, or the caller left.
- RESOURCE_EXHAUSTED: a message, or the metadata, is larger than the limit of server or client.
- UNIMPLEMENTED: the server cannot decompress the request.
- UNKNOWN, INTERNAL: a peer broke the rules of gRPC or HTTP/2.
- Any code from `grpc.channelz.v1` and `grpc.reflection`, whose handlers are gRPC's.
"""


def section() -> str:
    """Return the section of docs/api.md."""
    rows = "\n".join(
        f"| `{one.name}` | {one.code.name} | {one.retry} | {one.meaning} |"
        for one in REASONS.values()
    )
    header = "| reason | code | retry | meaning |\n| --- | --- | --- | --- |"
    return _SECTION.format(rows=f"{header}\n{rows}")


def data() -> str:
    """Return protos/tasklogs/v1/reasons.json: the domain, and each reason in the table's order."""
    reasons = [
        {
            "reason": one.name,
            "code": one.code.name,
            "retry": str(one.retry),
            "meaning": one.meaning,
        }
        for one in REASONS.values()
    ]
    return json.dumps({"domain": DOMAIN, "reasons": reasons}, indent=2) + "\n"
