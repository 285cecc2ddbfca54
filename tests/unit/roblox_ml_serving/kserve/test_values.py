"""Values that a cluster would refuse are refused here, all at once, and good ones are not."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity
from roblox_ml_serving.kserve import Door, Installation, ManifestInvalid, Model, Resources, Scaling, manifests
from roblox_ml_serving.kserve.values import check, quantity

DIGEST = "5b" * 32
GOOD = Installation("http://rml-control.ml.svc:18070")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Model("Feed", "feed", 1, DIGEST), "'Feed' cannot name an InferenceService"),
        (Model("f" * 54, "feed", 1, DIGEST), "at most 53"),
        (Model("feed", "feed", 0, DIGEST), "versions count from 1"),
        (Model("feed", "feed", 1, "latest"), "is no sha256"),
        (Model("feed", "feed", 1, DIGEST, "bucket/path"), "needs a scheme"),
        (Model("feed", "feed", 1, DIGEST, "nowhere://x"), "no storage initializer"),
        (Resources(cpu="many"), "no amount of processors"),
        (Resources(cpu="0"), "no amount of processors"),
        (Resources(memory="512m"), "did you mean 512Mi"),
        (Resources(cpu="2", cpu_limit="1"), "at least cpu '2'"),
        (Scaling(3, 1), "max_replicas 1 must be at least min_replicas 3"),
        (Scaling(0, 1), "1 is the least"),
        (Scaling(-1, 1), "must not be negative"),
        (Scaling(1, 2, target=500), "1 to 100 percent"),
        (Scaling(1, 2, "guess"), "it is cpu or queue"),
        (Scaling(1, 2, "queue", 20), "needs prometheus"),
        (Scaling(1, 2, "queue", 0, "http://prometheus:9090"), "at least 1 millisecond"),
        (Door(scaling=Scaling(1, 2, "queue", 5, "http://p:9090")), "they queue nothing"),
        (Installation("rml-control:18070"), "must be an http address"),
        (Installation("http://127.0.0.1:18070"), "that is the pod itself"),
        (Installation("http://c:1", namespace="My Space"), "no DNS label"),
        (Installation("http://c:1", store="file:///srv/store"), "pods see no files of this machine"),
        (Installation("http://c:1", image="rml"), "needs a tag"),
        (Installation("http://c:1", image="registry:5000/rml"), "needs a tag"),
        (Installation("http://c:1", image="rml:latest"), "needs a tag"),
        (Installation("http://c:1", secret="My Secret"), "no name that Kubernetes takes"),
        (Installation("http://c:1", pull_policy="Sometimes"), "must be Always"),
    ],
)
def test_a_bad_value_is_named_with_what_would_do(bad, said: str) -> None:
    with pytest.raises(ManifestInvalid, match=said):
        check(bad)


def test_all_of_them_are_in_one_error() -> None:
    with pytest.raises(ManifestInvalid) as refused:
        manifests(Model("Feed", "feed", 0, "x"), Installation("x"), scaling=Scaling(2, 1), resources=Resources("x"))
    assert len(refused.value.details["findings"]) == 6


@pytest.mark.parametrize("image", ["r.example.com:5000/a/b:1", f"r.example.com/a@sha256:{DIGEST}", "rml:v1.2"])
@pytest.mark.parametrize("uri", ["", "s3://bucket/p", "pvc://claim/p", "oci://r.example.com/m:1", "https://h/p.tar"])
def test_good_values_are_taken(image: str, uri: str) -> None:
    check(Model("feed", "feed", 1, DIGEST, uri), Installation("http://c:1", image=image), Scaling(1, 9), Resources())


@given(st.integers(1, 10**6), st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi"]))
def test_quantities_are_read_as_kubernetes_reads_them(number: int, unit: str) -> None:
    assert quantity(f"{number}{unit}") == parse_quantity(f"{number}{unit}")


@pytest.mark.parametrize("text", ["", "1 Gi", "Gi", "-1", "1e3x", "0x10", "1GiB"])
def test_what_is_no_quantity_is_none(text: str) -> None:
    assert quantity(text) is None
    assert quantity("1.5Gi") == Decimal("1.5") * 2**30
