"""The files for Envoy: what long streams need, in agreement with the server's own limits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tasklogs.v1 import task_logs_pb2
from tasklogs_server.domain.errors import ServerDraining
from tasklogs_server.settings import ServerSettings
from tests.deploy.known import DEPLOY, documents


@pytest.fixture(params=["envoy/envoy.example.yaml", "compose/envoy.yaml"])
def resources(request: pytest.FixtureRequest) -> dict[str, Any]:
    [document] = documents(DEPLOY / request.param)
    found: dict[str, Any] = document["static_resources"]
    return found


@pytest.fixture
def manager(resources: dict[str, Any]) -> dict[str, Any]:
    [listener] = resources["listeners"]
    [chain] = listener["filter_chains"]
    [network_filter] = chain["filters"]
    found: dict[str, Any] = network_filter["typed_config"]
    return found


@pytest.fixture
def http2(resources: dict[str, Any]) -> dict[str, Any]:
    [cluster] = resources["clusters"]
    [options] = cluster["typed_extension_protocol_options"].values()
    found: dict[str, Any] = options["explicit_http_config"]["http2_protocol_options"]
    return found


def test_no_timeout_ends_a_stream(manager: dict[str, Any]) -> None:
    [host] = manager["route_config"]["virtual_hosts"]
    assert {one["route"]["timeout"] for one in host["routes"]} == {"0s"}
    assert manager["stream_idle_timeout"] == "0s"


def test_unread_streams_leave_a_part_of_the_connection_to_others(http2: dict[str, Any]) -> None:
    unread = http2["initial_connection_window_size"] / http2["initial_stream_window_size"]
    assert unread >= 256


def test_pings_are_no_more_frequent_than_the_server_allows(http2: dict[str, Any]) -> None:
    interval = timedelta(seconds=float(http2["connection_keepalive"]["interval"].rstrip("s")))
    assert interval > ServerSettings.model_fields["ping_interval"].default


def test_only_reads_are_sent_again_after_a_server_has_begun_them(manager: dict[str, Any]) -> None:
    [host] = manager["route_config"]["virtual_hosts"]
    reads, others = host["routes"]
    retries = [one["route"]["retry_policy"] for one in (reads, others)]
    begun, not_begun = [set(one.pop("retry_on").split(",")) for one in retries]

    service = task_logs_pb2.DESCRIPTOR.services_by_name["TaskLogs"].full_name
    assert reads["match"] == {"prefix": f"/{service}/"}
    assert begun - not_begun == {"reset"}
    assert not_begun == {"connect-failure", "refused-stream", "retriable-headers"}
    assert retries[0] == retries[1]


def test_a_call_that_a_draining_server_refused_is_sent_again(manager: dict[str, Any]) -> None:
    [host] = manager["route_config"]["virtual_hosts"]
    for route in host["routes"]:
        [header] = route["route"]["retry_policy"]["retriable_headers"]
        assert header["name"] == "grpc-message"
        assert header["string_match"] == {"exact": str(ServerDraining(timedelta(seconds=1)))}


def test_it_allows_as_many_calls_as_two_servers(resources: dict[str, Any]) -> None:
    [cluster] = resources["clusters"]
    [limits] = cluster["circuit_breakers"]["thresholds"]
    fields = ServerSettings.model_fields
    for name in ("max_requests", "max_pending_requests", "max_connections"):
        assert limits[name] >= 2 * (fields["follows"].default + fields["agents"].default)
    assert limits["max_retries"] > 3


def test_the_connection_to_the_server_negotiates_http_2() -> None:
    [document] = documents(DEPLOY / "envoy/envoy.example.yaml")
    [cluster] = document["static_resources"]["clusters"]
    tls = cluster["transport_socket"]["typed_config"]["common_tls_context"]
    assert tls["alpn_protocols"] == ["h2"]
    assert tls["validation_context"]["trusted_ca"]
