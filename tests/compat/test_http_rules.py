"""The `google.api.http` options: a transcoder can route every method, and no two to one path."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from tasklogs.v1 import task_agents_pb2, task_logs_pb2, tasks_pb2

METHODS: list[MethodDescriptor] = [
    method
    for module in (task_agents_pb2, task_logs_pb2, tasks_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
SAFE = {"get"}
WITH_BODY = {"post", "patch", "put"}


def rule_of(method: MethodDescriptor) -> http_pb2.HttpRule | None:
    """Return the HTTP form of a method, if it has one."""
    extensions = method.GetOptions().Extensions
    if annotations_pb2.http not in extensions:
        return None
    rule: http_pb2.HttpRule = extensions[annotations_pb2.http]
    return rule


def verb_and_path(rule: http_pb2.HttpRule) -> tuple[str, str]:
    verb = rule.WhichOneof("pattern")
    assert verb is not None
    return verb, getattr(rule, verb)


ROUTED = [(method, rule) for method in METHODS if (rule := rule_of(method)) is not None]
each = pytest.mark.parametrize(("method", "rule"), ROUTED, ids=lambda one: getattr(one, "name", ""))


def test_every_method_without_a_stream_of_requests_has_a_path() -> None:
    without = {method.name for method in METHODS} - {method.name for method, _ in ROUTED}

    assert without == {"Connect", "UploadLogSnapshotInParts"}
    assert without == {method.name for method in METHODS if method.client_streaming}


def test_no_two_methods_have_the_same_path() -> None:
    places = Counter(
        (verb, re.sub(r"\{\w+=", "{", path))
        for verb, path in (verb_and_path(rule) for _, rule in ROUTED)
    )
    assert [place for place, count in places.items() if count > 1] == []


@each
def test_a_path_begins_with_the_version_and_names_string_fields(
    method: MethodDescriptor, rule: http_pb2.HttpRule
) -> None:
    _, path = verb_and_path(rule)
    assert re.fullmatch(r"/v1/[a-zA-Z/]+(\{task=\*\*\})?(:[a-zA-Z]+)?", path)
    for name in re.findall(r"\{(\w+)", path):
        field = method.input_type.fields_by_name[name]
        assert field.type == FieldDescriptor.TYPE_STRING
        assert not field.is_repeated


@each
def test_a_required_task_is_in_the_path(method: MethodDescriptor, rule: http_pb2.HttpRule) -> None:
    _, path = verb_and_path(rule)
    assert ("task" in method.input_type.fields_by_name) == ("{task=**}" in path)


@each
def test_reads_have_no_body_and_no_side_effects(
    method: MethodDescriptor, rule: http_pb2.HttpRule
) -> None:
    verb, _ = verb_and_path(rule)
    level = method.GetOptions().idempotency_level
    reads = level == method.GetOptions().NO_SIDE_EFFECTS
    assert (verb in SAFE) == reads
    assert rule.body == ("*" if verb in WITH_BODY else "")
    assert rule.response_body == ""
    assert not rule.additional_bindings


@each
def test_what_is_not_in_the_path_of_a_read_can_be_a_query_parameter(
    method: MethodDescriptor, rule: http_pb2.HttpRule
) -> None:
    """A query parameter is a scalar, an enum, a list of these, or a well-known type in JSON."""
    verb, _ = verb_and_path(rule)
    if verb in WITH_BODY:
        return
    for field in method.input_type.fields:
        if field.message_type is not None:
            assert field.message_type.full_name in {
                "google.protobuf.Duration",
                "google.protobuf.Timestamp",
                "google.protobuf.FieldMask",
            }
