"""A step's options: what is accepted, and what each mistake says."""

from __future__ import annotations

from typing import Any

import pytest

import roblox_ml as rml
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


@pytest.mark.parametrize(
    ("given", "told", "fix"),
    [
        ({"secrets": ["hub"]}, "not a list of rml.secret", "rml.secret("),
        ({"secrets": [rml.secret("hub")]}, "neither of env= and mount=", "env="),
        ({"secrets": [rml.secret("hub", key="k", env="A", mount="/a")]}, "both of env= and mount=", "mount="),
        ({"secrets": [rml.secret("hub", env="A")]}, "no key to read", 'key="token"'),
        ({"secrets": [rml.secret("Hub", key="k", env="A")]}, "no name of a Kubernetes Secret", "hub"),
        ({"secrets": [rml.secret("hub", key="k", env="A-B")]}, "no environment variable", 'env="K"'),
        ({"secrets": [rml.secret("hub", key="k", env="PATH")]}, "belongs to the platform", "your own"),
        ({"secrets": [rml.secret("hub", key="k", env="RML_STORE")]}, "belongs to the platform", "your own"),
        ({"secrets": [rml.secret("hub", mount="tls")]}, "no absolute path", "/secrets/hub"),
        ({"secrets": [rml.secret("hub", mount="/a/../etc")]}, "no absolute path", "/secrets/hub"),
        ({"secrets": [rml.secret("hub", mount="/tmp/")]}, "used by the platform", "/secrets/hub"),
        ({"secrets": [rml.secret("a.b", mount="/a")]}, "cannot be mounted", "env="),
        (
            {"secrets": [rml.secret("a", key="k", env="X"), rml.secret("b", key="k", env="X")]},
            "two secrets go to env",
            "its own",
        ),
        ({"secrets": [rml.secret("a", mount="/x"), rml.secret("a", mount="/y")]}, "mounted twice", "once"),
        ({"tolerations": [{"key": "gpu"}]}, "not a list of rml.toleration", "rml.toleration("),
        ({"tolerations": [rml.toleration("gpu", effect="Never")]}, "no effect", "NoExecute"),
        ({"tolerations": [rml.toleration("gpu", effect="NoSchedule", seconds=3)]}, "goes with", "seconds"),
        ({"tolerations": [rml.toleration("a b")]}, "no taint's key", "nvidia.com/gpu"),
        ({"node_selector": {"a b": "c"}}, "no label's key", "node_selector="),
        ({"queue": "Team A"}, "LocalQueue", "team-safety"),
        ({"shm": "1GB"}, "not a Kubernetes quantity", '"1Gi"'),
        ({"ephemeral_storage": 10}, "not a Kubernetes quantity", 'ephemeral_storage="4Gi"'),
        ({"image": "my image"}, "not an image", "registry"),
    ],
)
def test_what_a_cluster_would_refuse_is_said_here(given: dict[str, Any], told: str, fix: str) -> None:
    _, (finding,) = read(given, "train", SITE)
    assert told in finding.message and fix in finding.fix


def test_known_by_another_name() -> None:
    for asked, name in {
        "shm_size": "shm",
        "priority_class": "priority",
        "secret": "secrets",
        "disk": "ephemeral_storage",
    }.items():
        _, (finding,) = read({asked: 1}, "train", SITE)
        assert finding.fix == f"did you mean {name}=…?"


def test_references_are_ordered_and_said_once() -> None:
    one, two = rml.secret("b", key="k", env="B"), rml.secret("a", key="k", env="A")
    assert only(secrets=[one, two, one]).secrets == (two, one)
    assert only(tolerations=rml.toleration("gpu")).tolerations == (rml.toleration("gpu"),)
