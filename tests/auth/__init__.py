"""Tests of tasklogs_server.auth: tokens, keys and certificates, without a server."""
