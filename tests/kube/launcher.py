#!/usr/bin/env python3
"""The launcher's part of an executor pod, as Kubeflow Pipelines 2.17 plays it: the file that runs before and after a step.

    launcher.py --copy FOLDER/launch                   in the init container: put itself where the step's container finds it
    launch --executor_input JSON … -- COMMAND…         in the step's container: inputs, placeholders, command, outputs

It fetches the input artifacts to `/minio/<bucket>/…`, replaces the placeholders of the command, runs it, and uploads the
outputs. What the real one writes into the metadata store, this one leaves as one object beside the artifacts. Its keys to
the object store are its own and are taken out of the step's environment.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

REPORT = "executor_output.json"
_MOUNTS = {"minio://": "/minio/", "s3://": "/s3/"}
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")
_FIELD = re.compile(r"\{\{\$\.(inputs|outputs)\.(parameters|artifacts)\['([^']+)'\](?:\.(\w+))?\}\}")


def main(argv: list[str]) -> int:
    """One of the two commands above; the step's own exit code."""
    if argv[0] == "--copy":
        shutil.copytree(Path(__file__).parent / "s3", Path(argv[1]).parent / "s3")
        shutil.copy(__file__, argv[1])
        Path(argv[1]).chmod(0o755)
        return 0
    cut = argv.index("--")
    flags = dict(zip(argv[:cut:2], argv[1:cut:2], strict=False))
    given = json.loads(flags["--executor_input"])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LAUNCHER_")}
    os.environ.update({name: os.environ[f"LAUNCHER_{name}"] for name in _KEYS})
    for listed in ((given.get("inputs") or {}).get("artifacts") or {}).values():
        for artifact in listed["artifacts"]:
            download(artifact["uri"])
    outputs = given["outputs"]
    paths = [outputs["outputFile"], *(one["outputFile"] for one in (outputs.get("parameters") or {}).values())]
    paths += [local(artifact["uri"]) for artifact in written(outputs)]
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    command = [resolved(part, given) for part in argv[cut + 1 :]]
    code = subprocess.run(command, env=environment, check=False).returncode
    if code:
        return code
    for artifact in written(outputs):
        upload(artifact["uri"])
    report(given)
    return 0


def written(outputs: dict[str, Any]) -> list[dict[str, Any]]:
    """Every declared output artifact."""
    return [one for listed in (outputs.get("artifacts") or {}).values() for one in listed["artifacts"]]


def resolved(part: str, given: dict[str, Any]) -> str:
    """One argument with its placeholders replaced."""

    def field(match: re.Match[str]) -> str:
        side, kind, name, attribute = match.groups()
        if kind == "artifacts":
            uri = given[side]["artifacts"][name]["artifacts"][0]["uri"]
            return uri if attribute == "uri" else local(uri)
        if side == "outputs":
            return str(given[side]["parameters"][name]["outputFile"])
        value = given[side]["parameterValues"][name]
        return value if isinstance(value, str) else json.dumps(value)

    return _FIELD.sub(field, part.replace("{{$}}", json.dumps(given)))


def local(uri: str) -> str:
    """Where an artifact lies in the pod."""
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return mount + uri[len(scheme) :]
    raise SystemExit(f"launcher: {uri} is in no object store")


def bucket(uri: str) -> tuple[Any, str]:
    """The bucket of an address, and the key in it."""
    from s3._s3 import Bucket

    name, _, key = uri.partition("://")[2].partition("/")
    return Bucket(name), key


def download(uri: str) -> None:
    """An artifact, be it one object or all below a prefix, to its place. An empty folder leaves no object: so be it."""
    store, key = bucket(uri)
    for found, _ in store.listed(key):
        if found == key or found.startswith(f"{key}/"):
            target = Path(local(uri) + found[len(key) :])
            target.parent.mkdir(parents=True, exist_ok=True)
            with store.get(found) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def upload(uri: str) -> None:
    """An artifact's file or folder."""
    store, key = bucket(uri)
    root = Path(local(uri))
    for path in [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file()):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            name = key if path == root else f"{key}/{path.relative_to(root).as_posix()}"
            store.put(name, stream, path.stat().st_size, digest)


def report(given: dict[str, Any]) -> None:
    """What the step said of its outputs, for whoever plays the driver."""
    outputs = given["outputs"]
    path = Path(outputs["outputFile"])
    said = json.loads(path.read_text()) if path.is_file() else {}
    files = {name: Path(one["outputFile"]) for name, one in (outputs.get("parameters") or {}).items()}
    said["parameterFiles"] = {name: file.read_text() for name, file in files.items() if file.is_file()}
    data = json.dumps(said).encode()
    place = next(f"{s}{str(path.parent)[len(m) :]}" for s, m in _MOUNTS.items() if str(path).startswith(m))
    store, key = bucket(place)
    store.put(f"{key}/{REPORT}", data, len(data), hashlib.sha256(data).hexdigest())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
