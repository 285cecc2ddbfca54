"""A step's options: what is accepted, and what each mistake says."""

from __future__ import annotations

from typing import Any

import pytest

from roblox_ml._graph.options import Options, read
from roblox_ml._graph.where import Site

SITE = Site("train.py", 12)


def only(**given: Any) -> Options:
    options, findings = read(given, "train", SITE)
    assert findings == []
    return options


def test_units() -> None:
    asked = only(cpu=0.5, memory="4Gi", timeout="1h30m", gpu=2)
    assert (asked.cores, asked.memory_bytes, asked.timeout, asked.gpu) == (
        0.5,
        4 * 2**30,
        5400,
        ("nvidia.com/gpu", 2),
    )
    assert only(cpu="500m").cores == 0.5
    assert only(memory="2G").memory_bytes == 2_000_000_000
    assert only(timeout="2d").timeout == 172_800
    assert only(timeout=7).timeout == 7
    assert only(gpu="amd.com/gpu:4").gpu == ("amd.com/gpu", 4)
    assert only(gpu=0).gpu is None


def test_nothing_asked_is_nothing_set() -> None:
    assert only() == Options()
    assert only(cpu=None, memory=None, priority=None, packages=[]) == Options()


def test_labels_are_ordered() -> None:
    assert only(labels={"b": "2", "a": "1"}).labels == (("a", "1"), ("b", "2"))


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ({"memory": "4GB"}, '"4Gi"'),
        ({"memory": "512 mb"}, '"512Mi"'),
        ({"memory": 4}, "4Gi"),
        ({"memory": "0Gi"}, "4Gi"),
        ({"cpu": "two"}, "cpu=2"),
        ({"cpu": 0}, "cpu=2"),
        ({"cpu": True}, "cpu=2"),
        ({"cpu": "0"}, "cpu=2"),
        ({"gpu": "a100"}, "gpu=1"),
        ({"gpu": -1}, "gpu=1"),
        ({"timeout": "soon"}, "30m"),
        ({"timeout": ""}, "30m"),
        ({"timeout": "0s"}, "30m"),
        ({"retries": -1}, "retries=2"),
        ({"retries": 1.5}, "retries=2"),
        ({"cache": "no"}, "True or False"),
        ({"spot": 1}, "True or False"),
        ({"priority": "not a label"}, 'priority="high"'),
        ({"packages": "scikit-learn==1.8.0"}, "packages=["),
        ({"packages": ["-e ."]}, "packages=["),
        ({"labels": {"team": "a b"}}, "letters"),
        ({"labels": ["team"]}, "labels={"),
    ],
)
def test_each_mistake_is_one_finding_with_what_to_type(given: dict[str, Any], fix: str) -> None:
    _, findings = read(given, "train", SITE)
    assert len(findings) == 1
    assert findings[0].code == f"bad-{next(iter(given))}"
    assert fix in findings[0].fix
    assert findings[0].where == "train.py:12"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("memmory", "memory"), ("gpus", "gpu"), ("ram", "memory"), ("retry", "retries"), ("pip", "packages")],
)
def test_unknown_options_say_which_was_meant(name: str, meant: str) -> None:
    _, findings = read({name: 1}, "train", SITE)
    assert [f.code for f in findings] == ["unknown-option"]
    assert f"did you mean {meant}=" in findings[0].fix


def test_an_option_like_no_other_lists_them_all() -> None:
    _, findings = read({"zzz": 1}, "train", SITE)
    assert "cpu, memory, gpu" in findings[0].why


def test_all_mistakes_at_once() -> None:
    _, findings = read({"cpu": -1, "memory": "x", "colour": 1}, "train", SITE)
    assert [f.code for f in findings] == ["bad-cpu", "bad-memory", "unknown-option"]
