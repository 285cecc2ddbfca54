"""The parts of the local stack: what each runs, which ports it takes, how to tell that it is ready.

Pure description: nothing here starts anything. A part is started as `python -m …`, never imported, so that the SDK stays
free of the servers' code.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from .._store import home


@dataclass(frozen=True, slots=True)
class Port:
    """A TCP port a part listens on, and the variable that moves it."""

    number: int
    purpose: str
    variable: str


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the stack."""

    name: str
    title: str
    command: tuple[str, ...]
    ports: tuple[Port, ...]
    ready_url: str | None  # GET answers 200 when ready; None: ready when it runs
    url: str  # what a person opens or a client dials
    needs: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None


ORDER = ("mlflow", "control-plane", "runner", "triton", "agent", "door")


def describe() -> dict[str, Part]:
    """Every part by name, with the ports the settings say."""
    from roblox_ml_core import settings

    control = settings.ControlPlaneSettings()
    mlflow = settings.MlflowSettings()
    door = settings.DoorSettings()
    triton = settings.TritonSettings()
    state = home() / "mlflow"
    python = sys.executable
    control_port = Port(control.port, "control plane", "RML_CONTROL_PORT")
    parts = [
        Part(
            "mlflow", "MLflow tracking and registry",
            (python, "-m", "mlflow", "server", "--host", mlflow.host, "--port", str(mlflow.port), "--workers", "1",
             "--backend-store-uri", f"sqlite:///{state / 'mlflow.db'}", "--artifacts-destination", str(state / "artifacts")),
            (Port(mlflow.port, "MLflow", "RML_MLFLOW_PORT"),),
            f"http://{mlflow.host}:{mlflow.port}/health", f"http://{mlflow.host}:{mlflow.port}",
            # Its job runner is six more processes for features that are not used here.
            env={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        ),
        Part(
            "control-plane", "control plane (versions, aliases, endpoints)",
            (python, "-m", "roblox_ml_platform"), (control_port,),
            f"http://{control.host}:{control.port}/readyz", f"http://{control.host}:{control.port}",
        ),
        Part(
            "runner", "runner: starts what schedules and triggers make due",
            (python, "-m", "roblox_ml._runner"), (), None, "-", needs=("control-plane",),
        ),
        Part(
            "triton", "Triton Inference Server",
            (python, "-m", "roblox_ml_serving.triton"),
            (Port(triton.http_port, "Triton REST", "RML_TRITON_HTTP_PORT"), Port(triton.grpc_port, "Triton gRPC", "RML_TRITON_GRPC_PORT"),
             Port(triton.metrics_port, "Triton metrics", "RML_TRITON_METRICS_PORT")),
            f"http://{triton.host}:{triton.http_port}/v2/health/ready", f"http://{triton.host}:{triton.http_port}",
        ),
        Part(
            "agent", "model agent beside Triton",
            (python, "-m", "roblox_ml_serving.agent"), (), None, "-", needs=("control-plane", "triton"),
        ),
        Part(
            "door", "the door: REST and gRPC for every client",
            (python, "-m", "roblox_ml_serving.door"),
            (Port(door.port, "door REST", "RML_DOOR_PORT"), Port(door.grpc_port, "door gRPC", "RML_DOOR_GRPC_PORT")),
            f"http://{door.host}:{door.port}/v2/health/ready", f"http://{door.host}:{door.port}", needs=("control-plane",),
        ),
    ]  # fmt: skip
    return {part.name: part for part in parts}


def with_needs(names: tuple[str, ...], parts: Mapping[str, Part]) -> tuple[str, ...]:
    """The named parts and all they need, in starting order; no name means every part."""
    unknown = [name for name in names if name not in parts]
    if unknown:
        raise KeyError(f"no part is called {unknown[0]!r}; the parts are {', '.join(ORDER)}")
    wanted: set[str] = set(names or ORDER)
    pending = list(wanted)
    while pending:
        for need in parts[pending.pop()].needs:
            if need not in wanted:
                wanted.add(need)
                pending.append(need)
    return tuple(name for name in ORDER if name in wanted)
