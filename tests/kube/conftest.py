"""A real cluster for the tests here: the one that RML_TEST_KUBECONFIG names, or one started beside the clone for them.

    RML_TEST_KUBECONFIG=…/kubeconfig        any cluster (kind, …); then also
    RML_TEST_STEP_IMAGE=…                   the step image, pullable or loaded there (made by `make step-image`)
    AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, RML_TEST_BUCKET     an S3 server that its pods reach

Without the first, `../shared/kube/testcluster` is started with KServe's controller (root, and the packages its help
names); afterwards it is taken down. Tests that run steps also need the image: it is built with `scripts/build_step_image.py`
and loaded. Where one of this is impossible the tests are skipped, and say why.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))
if TYPE_CHECKING:
    from cluster_engine import Cluster
IMAGE = "localhost/rml-step:1"
SETTINGS = "rml-steps"
KEYS = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.kube)


@pytest.fixture(scope="session")
def up(shared: Path) -> Iterator[tuple[str, str]]:
    """A cluster: the kubeconfig's path, and what starting it said. One for all tests, since a machine has room for one."""
    if kubeconfig := os.environ.get("RML_TEST_KUBECONFIG"):
        yield kubeconfig, ""
        return
    tool = shared / "kube" / "testcluster"
    if not tool.is_file() or os.geteuid() != 0:
        pytest.skip("no cluster: set RML_TEST_KUBECONFIG, or run as root beside ../shared/kube/testcluster")
    command = [str(tool), "up", "--nodes", "real", "--with", "s3,kserve", "--crds", "kserve,gateway-api"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        if done.returncode:
            pytest.skip(f"the test cluster did not start: {done.stderr.strip()[-400:]}")
        yield done.stdout.strip().splitlines()[-1], done.stderr
    finally:
        if "is in use" not in done.stderr:  # somebody else's
            subprocess.run([str(tool), "down"], check=False, capture_output=True)


@pytest.fixture(scope="session")
def started(up: tuple[str, str], shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where the cluster is: kubeconfig, image, bucket, keys, and the address of this machine as pods see it."""
    if kubeconfig := os.environ.get("RML_TEST_KUBECONFIG"):
        missing = [name for name in (*KEYS[:3], "RML_TEST_BUCKET", "RML_TEST_STEP_IMAGE") if not os.environ.get(name)]
        if missing:
            pytest.skip(f"RML_TEST_KUBECONFIG is set, but not {', '.join(missing)}: see tests/kube/conftest.py")
        found = {name: os.environ.get(name, "us-east-1") for name in KEYS}
        yield {
            **found, "kubeconfig": kubeconfig, "image": os.environ["RML_TEST_STEP_IMAGE"],
            "bucket": os.environ["RML_TEST_BUCKET"], "host": os.environ.get("RML_TEST_HOST", ""),
        }  # fmt: skip
        return
    said = re.search(r"s3: (\S+), access key (\S+), secret key (\S+), bucket (\S+)", up[1])
    assert said, up[1]
    archive = tmp_path_factory.mktemp("image") / "step.tar"
    script = ROOT / "scripts" / "build_step_image.py"
    command = [sys.executable, str(script), "--output", str(archive), "--tag", IMAGE]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        pytest.skip(f"the step image could not be built: {(built.stdout + built.stderr).strip()[-400:]}")
    subprocess.run([str(shared / "kube" / "testcluster"), "load", str(archive)], check=True, capture_output=True)
    yield {
        **dict(zip(KEYS, (*said.groups()[:3], "us-east-1"), strict=True)), "bucket": said[4], "image": IMAGE,
        "kubeconfig": up[0], "host": "10.123.0.1",
    }  # fmt: skip


@pytest.fixture(scope="session")
def namespace(started: dict[str, str]) -> Iterator[Cluster]:
    """A namespace with what an administrator puts there once: settings and keys for steps, the launcher."""
    from cluster_engine import Cluster, core_api
    from kubernetes import client
    from pods import LAUNCHER, LAUNCHER_KEYS

    api = core_api(started["kubeconfig"])
    name = f"rml-test-{uuid.uuid4().hex[:6]}"
    s3 = {key: started[key] for key in KEYS}
    cluster = Cluster(api, name, started["image"], started["bucket"], s3, started["host"] or None)
    api.create_namespace(client.V1Namespace(metadata={"name": name}))
    sdk = ROOT / "roblox_ml"
    files = {file: (sdk / file).read_text() for file in ("_s3.py", "_s3_errors.py")}
    files |= {"__init__.py": "", "launcher.py": (Path(__file__).parent / "launcher.py").read_text()}
    api.create_namespaced_config_map(name, client.V1ConfigMap(metadata={"name": LAUNCHER}, data=files))
    api.create_namespaced_secret(name, client.V1Secret(metadata={"name": LAUNCHER_KEYS}, string_data=s3))
    settings = {"RML_STORE": cluster.store, "AWS_ENDPOINT_URL": s3["AWS_ENDPOINT_URL"], "AWS_REGION": s3["AWS_REGION"]}
    api.create_namespaced_config_map(name, client.V1ConfigMap(metadata={"name": SETTINGS}, data=settings))
    keys = {key: s3[key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    api.create_namespaced_secret(name, client.V1Secret(metadata={"name": SETTINGS}, string_data=keys))
    yield cluster
    api.delete_namespace(name, propagation_policy="Background")


@pytest.fixture
def cluster(namespace: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster, with this process set up as a notebook that compiles for it."""
    for name, value in namespace.s3.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RML_STORE", namespace.store)
    monkeypatch.setenv("RML_STEP_IMAGE", namespace.image)
    monkeypatch.setenv("RML_STEP_SETTINGS", SETTINGS)
    return namespace
