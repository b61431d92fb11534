"""The dashboard uses only metrics and labels that a server exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from tasklogs_server.telemetry.catalogue import catalogue
from tests.deploy.known import DEPLOY

DASHBOARD = json.loads((DEPLOY / "grafana/tasklogs.json").read_text())
_NAME = re.compile(r"\b(?:tasklogs|process|python)_\w+")
_SELECTED = re.compile(r"(\w+)\{([^}]*)\}")
_GROUPED = re.compile(r"\bby \(([^)]*)\)")
# `worker` is on every series if there are several workers.
_FROM_PROMETHEUS = {"instance", "le", "worker"}


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


def queries() -> Iterator[str]:
    yield from expressions()
    for variable in DASHBOARD["templating"]["list"]:
        if isinstance(variable["query"], str):
            yield variable["query"]


def series() -> dict[str, set[str]]:
    """Return the labels of every series that a server exports."""
    found = {name: set(one.labels) for one in catalogue() for name in one.series}
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    for metric in registry.collect():
        for sample in metric.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_it_names_only_metrics_that_exist() -> None:
    named = {name for query in queries() for name in _NAME.findall(query)}

    assert named
    assert named <= set(series())


def test_it_has_every_metric_of_the_server() -> None:
    named = {name for query in queries() for name in _NAME.findall(query)}

    assert not [one.name for one in catalogue() if not named & set(one.series)]


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_labels_are_those_of_the_metric(expression: str) -> None:
    known = series()
    labels = set(_FROM_PROMETHEUS)
    for name, selected in _SELECTED.findall(expression):
        labels |= known[name]
        chosen = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selected))
        assert chosen <= known[name] | _FROM_PROMETHEUS, name
    for grouped in _GROUPED.findall(expression):
        assert {one.strip() for one in grouped.split(",")} <= labels


def test_legends_name_only_labels_that_the_query_keeps() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            grouped = {
                one.strip()
                for group in _GROUPED.findall(target["expr"])
                for one in group.split(",")
            }
            is_aggregated = bool(re.search(r"\b(sum|min|max)\b", target["expr"]))
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert not is_aggregated or label in grouped, target


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    ids: set[Any] = set()
    for panel in DASHBOARD["panels"]:
        position = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert not cells & taken, panel["title"]
        assert position["x"] + position["w"] <= 24
        taken |= cells
        ids.add(panel["id"])
    assert len(ids) == len(DASHBOARD["panels"])
