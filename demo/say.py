"""Says something to a task's agent through its task app: python -m demo.say URL TEXT."""

from __future__ import annotations

import json
import sys
import urllib.request


def main() -> None:
    url, text = sys.argv[1:]
    body = json.dumps({"content": text, "type": "user"}).encode()
    request = urllib.request.Request(
        f"{url}/message", data=body, headers={"content-type": "application/json"}
    )
    # No proxy: the task app is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20) as response:
        print(response.read().decode().strip())


if __name__ == "__main__":
    main()
