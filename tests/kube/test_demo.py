"""The demo pipeline on the cluster: every step of `examples/comment_sentiment` as a Pod, with the local run's outputs.

The notebook is the example's, up to its pipeline, on a handful of the texts. It runs here first, with the local executor;
then the same IR runs as pods, which build their environments from the locks. Both register at one control plane. What the
pods need of packages is served to them from this machine, as a company's mirror would: no test depends on the internet
inside a cluster.
"""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_engine import Cluster, ClusterRun
from kubernetes import client

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "comment_sentiment"
EDITS = {
    "for source in SOURCES], ignore_index=True)": "for source in SOURCES], ignore_index=True).sample(1200, random_state=0)",
    "gate=rml.gate(f1=0.68, gain_low=0.0)": "gate=rml.gate(f1=0.05)",
    # The optimiser's environment is gigabytes, minutes to build in a pod; that it is locked and travels is tested without a cluster.
    ' optimize="cpu", data=split.test,': "",
}
# What the notebook does after its pipeline. The run's record has the pipeline file, and its blobs are in the bucket.
LAST = """
import pathlib
run = comment_sentiment.run()
pathlib.Path("run.txt").write_text(run.id)
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def control(cluster: Cluster, rml_home: Path, free_port: Callable[[], int]) -> Iterator[str]:
    """A control plane on the bucket that pods reach; its address."""
    if cluster.host is None:
        pytest.skip("set RML_TEST_HOST to an address of this machine that the cluster's pods reach")
    from roblox_ml_core.registry import RegistryClient
    from roblox_ml_core.settings import HomeSettings

    port, url = free_port(), ""
    url = f"http://{cluster.host}:{port}"
    environment = {
        **os.environ,
        "RML_CONTROL_HOST": cluster.host,
        "RML_CONTROL_PORT": str(port),
        "RML_MLFLOW_ENABLED": "false",
    }
    token = HomeSettings(home=rml_home).ensure_token()
    log = (rml_home / "control.log").open("wb")
    process = subprocess.Popen([sys.executable, "-m", "roblox_ml_platform"], env=environment, stdout=log, stderr=log)
    plane = RegistryClient(url, token)
    try:
        while not plane.ready():
            assert process.poll() is None, (rml_home / "control.log").read_text()[-3000:]
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def mirror(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder of wheels, and where the pods find it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    folder = tmp_path / "wheels"
    folder.mkdir()
    assert cluster.host is not None
    server = http.server.ThreadingHTTPServer((cluster.host, 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://{cluster.host}:{server.server_port}/"
    server.shutdown()
    server.server_close()


def notebook(folder: Path) -> None:
    """The example's notebook as far as its pipeline, edited, run in a kernel in `folder`."""
    import nbformat
    from nbclient import NotebookClient

    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    book = nbformat.read(folder / "comment_sentiment.ipynb", as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    (end,) = [i for i, cell in enumerate(cells) if "@rml.pipeline" in cell.source]
    book.cells = [*cells[: end + 1], nbformat.v4.new_code_cell(LAST)]
    for old, new in EDITS.items():
        (place,) = [cell for cell in book.cells if old in cell.source]
        place.source = place.source.replace(old, new)
    NotebookClient(book, timeout=1200, resources={"metadata": {"path": str(folder)}}).execute()


def parquet(data: bytes) -> Any:
    import pandas

    return pandas.read_parquet(io.BytesIO(data))


def test_every_step_of_the_demo_runs_as_a_pod_and_gives_what_the_local_run_gave(
    cluster: Cluster,
    control: str,
    mirror: tuple[Path, str],
    rml_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pandas
    from test_pods import files, told

    import roblox_ml as rml
    from roblox_ml._store import open_store

    wheels, address = mirror
    token = (rml_home / "token").read_text().strip()
    monkeypatch.setenv("RML_CONTROL_URL", control)
    monkeypatch.setenv("RML_TOKEN", token)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    started = time.monotonic()
    notebook(tmp_path / "example")
    print(f"notebook and local run: {time.monotonic() - started:.0f} s")
    local = rml.get_run((tmp_path / "example" / "run.txt").read_text())
    assert local.state == "SUCCEEDED"
    ir = (rml_home / "runs" / local.id / "ir.yaml").read_bytes()
    executors = next(yaml.safe_load_all(ir))["deploymentSpec"]["executors"].values()
    arguments = [executor["container"]["args"] for executor in executors]
    locks = sorted({args[args.index("--lock") + 1] for args in arguments} - {"none"})
    assert len(locks) > 1

    started = time.monotonic()
    for digest in locks:
        lock = tmp_path / f"{digest}.txt"
        lock.write_bytes(open_store().get(digest))
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "-r", str(lock)]
        subprocess.run([*command, "-d", str(wheels)], check=True)
    print(f"{len(list(wheels.iterdir()))} wheels in the mirror after {time.monotonic() - started:.0f} s")
    settings = {"data": {"RML_CONTROL_URL": control, "PIP_FIND_LINKS": address, "PIP_NO_INDEX": "1"}}
    cluster.api.patch_namespaced_config_map("rml-steps", cluster.namespace, settings)
    cluster.api.patch_namespaced_secret(
        "rml-steps", cluster.namespace, client.V1Secret(string_data={"RML_TOKEN": token})
    )

    run = ClusterRun(cluster.api, cluster.namespace, cluster.bucket, ir)
    assert run.run() == "SUCCEEDED", told(run)
    assert {name for name, step in run.steps.items() if step.state == "SUCCEEDED"} == set(local.tasks)
    for name, step in run.steps.items():
        pod = cluster.api.read_namespaced_pod(step.pod, cluster.namespace)
        label = run.pipeline["components"][run.pipeline["root"]["dag"]["tasks"][name]["componentRef"]["name"]][
            "executorLabel"
        ]
        container = run.pipeline["deploymentSpec"]["executors"][label]["container"]
        (main,) = pod.spec.containers
        assert (main.image, main.args) == (container["image"], [*container["command"], *container["args"]])
        built = re.findall(r"environment \w+: ready after ([\d.]+) s", step.log)
        print(f"{name}: pod {step.seconds:.1f} s, of which the environment {built or 'none'}")

    # The same bytes where a step computes the same on any machine.
    for output in ("train", "test"):
        made = getattr(local.outputs["prepare"], output)
        on_disk = {p.relative_to(made.path).as_posix(): p.read_bytes() for p in made.path.rglob("*") if p.is_file()}
        assert files(run, "prepare", output) == on_disk
    frames = [parquet(data) for data in files(run, "baselines", "Output").values()]
    pandas.testing.assert_frame_equal(frames[0], local.outputs["baselines"].to_pandas())
    # A trained network may differ in the last bits between machines; its answers and its score may not.
    (scores,) = run.steps["evaluate"].outputs["artifacts"]["scores"]
    ours = local.outputs["evaluate"].scores.metadata
    for name, value in ours.items():
        if not name.startswith("rml."):
            assert scores["metadata"][name] == pytest.approx(value, abs=0.01), name
    registered = run.steps["register"].outputs["parameters"]
    print("identical packages:", registered["digest"] == local.outputs["register"].digest, registered)
    version = rml.models.get(f"comment-sentiment/{registered['version']}")
    if registered["digest"] != local.outputs["register"].digest:
        assert version.lineage["run"] == run.id and version.lineage["pipeline"] == "comment-sentiment"
    assert token not in told(run)
    assert json.dumps(registered)
