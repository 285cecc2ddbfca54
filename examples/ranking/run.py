"""`python examples/ranking/run.py`: logs to a ranking endpoint, and questions to it. The stack stays up; `rml down` ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recommender import NAME, recommender

import roblox_ml as rml

HERE = Path(__file__).resolve().parent


@contextmanager
def feature_server(*tables: rml.Dataset) -> Iterator[str]:
    """The views of these tables, at the address where doors look for features."""
    port = urlsplit(os.environ.get("RML_FEATURES_URL", "http://127.0.0.1:18090")).port
    files = [str(file) for table in tables for file in sorted(table.path.glob("*.parquet"))]
    command = [sys.executable, "-m", "roblox_ml_serving.ranking.stub", *files, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the feature server did not start; is port {port} taken? RML_FEATURES_URL moves it")
        try:
            yield line.strip()
        finally:
            process.terminate()


def ask(url: str, user: str, candidates: list[int], **context: float) -> dict[str, Any]:
    """What any client sends: plain JSON over HTTP."""
    tensors = {
        "USER": ("BYTES", [user]),
        "CANDIDATES": ("INT64", candidates),
        "CONTEXT": ("BYTES", [json.dumps(context)]),
    }
    inputs = [
        {"name": name, "datatype": kind, "shape": [len(data)], "data": data} for name, (kind, data) in tensors.items()
    ]
    headers = {"authorization": f"Bearer {token}"} if (token := os.environ.get("RML_TOKEN")) else {}
    request = urllib.request.Request(url, json.dumps({"inputs": inputs}).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        document: dict[str, Any] = json.load(answer)
    named = {one["name"]: one["data"] for one in document["outputs"]}
    return {**named, "defaulted": document["parameters"]["features_defaulted"]}


def main() -> None:
    rml.datasets.add(
        "open-bandit-men", HERE / "data", description="Open Bandit sample, campaign men: 20,000 impressions, 115 clicks"
    )
    run = recommender.run()
    judged, served = run.outputs["judge"], run.outputs["tables"]
    print("\nClicks per thousand impressions, on days that the model has not seen (95 % intervals):\n")
    print(judged.table.to_pandas().to_string(index=False))
    lift, low, high = (judged.metrics[name] for name in ("lift", "lift_low", "lift_high"))
    print(f"\nOur three against what was shown, per thousand: {lift:+.2f} ({low:+.2f} to {high:+.2f})")
    if low > 0 or high < 0:
        print("That is more than chance.")
    else:
        print("That is within what chance does: this log cannot tell. An experiment on live traffic can.")

    with feature_server(served.user_profile, served.item_stats) as line:
        print(f"\n{line}")
        endpoint = rml.deploy(f"{NAME}@champion", unit="user_id")
        for user in ("0.0.0.0", "0.0.1.1", "1.1.2.0", "nobody"):
            answer = ask(endpoint.url, user, list(range(34)), slot_2=0, slot_3=0)
            scores = ", ".join(f"{score:.4f}" for score in answer["SCORES"])
            print(f"  {user:8} items {answer['ITEMS']}  scores {scores}  defaults {answer['defaulted']}")
        print("The second slot, through the SDK:")
        print(endpoint.rank("0.0.0.0", [3, 14, 15, 9, 26], {"slot_2": 1}))
    answer = ask(endpoint.url, "1.0.4.1", [3, 14, 15, 9, 26, 999], slot_2=0, slot_3=0)
    print(
        f"The feature server is gone: items {answer['ITEMS']} still, from what the door kept, with {answer['defaulted']} defaults"
    )


if __name__ == "__main__":
    main()
