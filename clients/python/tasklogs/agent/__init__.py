"""The agent: beside the task app it opens the agent stream and reports for it.
It knows the API and the task app's HTTP; the server's rooms may not come in."""
