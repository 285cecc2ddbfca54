"""Triton as the agent sees it, over gRPC: which versions are loaded, load one, unload one, ask one.

Loads never go over Triton's HTTP port: there they hold a server thread for seconds, and with it other clients' inferences.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from roblox_ml_core.errors import RmlError, Unavailable
from roblox_ml_core.package import Signature

from ..repository.config import BATCH_SUFFIX
from .plan import Key

__all__ = ["TRANSITIONS", "LoadFailed", "Slow", "Triton", "parse_name"]

CALL_TIMEOUT_S = 5.0
TRANSITIONS = ("LOADING", "UNLOADING")


class LoadFailed(RmlError):
    """Triton refused to load a version; the message is the reason it gave."""

    code = "load_failed"


class Slow(Unavailable):
    """Triton is there and did not answer in time: it is busy, or it hangs."""


def parse_name(name: str) -> Key | None:
    """The version behind a public Triton model name; None for a batch model and for what is not ours."""
    model, dot, version = name.rpartition(".")
    if not dot or "." in model or not version.isascii() or not version.isdigit():
        return None
    return Key(model, int(version))


class Triton:
    """One Triton server. Safe to use from several threads."""

    def __init__(self, address: str, *, load_timeout_s: float = 300.0) -> None:
        import tritonclient.grpc as grpc_client

        self._grpc = grpc_client
        self._load_timeout_s = load_timeout_s
        # A restarted Triton must be found again at once, not after gRPC's minute-long back-off.
        channel = [
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
        ]
        self._client = grpc_client.InferenceServerClient(address, channel_args=channel)
        # One load or unload at a time: Triton's model lifecycle can crash the whole server when two of them overlap.
        self._one_change = threading.Lock()

    def close(self) -> None:
        self._client.close()

    def ready(self) -> bool:
        try:
            return bool(self._client.is_server_ready(client_timeout=CALL_TIMEOUT_S))
        except Exception:  # whatever it is: not ready
            return False

    def loaded(self) -> dict[Key, str]:
        """State of every version that the index knows as more than a folder: READY, LOADING, UNLOADING or UNAVAILABLE.

        A version is in transition while either of its two models is.
        """
        index = self._call(self._client.get_model_repository_index, client_timeout=CALL_TIMEOUT_S)
        states = {model.name: model.state for model in index.models if model.state}
        found: dict[Key, str] = {}
        for name, state in states.items():
            key = parse_name(name)
            if key is not None:
                inner = states.get(name + BATCH_SUFFIX, state)
                found[key] = inner if inner in TRANSITIONS else state
        return found

    def reason(self, name: str) -> str:
        """Why a model (or the one it consists of) is not available, as Triton's index says it."""
        index = self._call(self._client.get_model_repository_index, client_timeout=CALL_TIMEOUT_S)
        reasons = {model.name: model.reason for model in index.models if model.reason and model.state != "READY"}
        return str(reasons.get(name + BATCH_SUFFIX) or reasons.get(name, ""))

    def digest(self, name: str) -> str:
        """The package digest in the configuration that is loaded (not the one on disk)."""
        answer = self._call(self._client.get_model_config, name, client_timeout=CALL_TIMEOUT_S)
        return str(answer.config.parameters["rml.digest"].string_value)

    def load(self, name: str) -> None:
        """Load a public model and its batch model; `LoadFailed` with Triton's reason."""
        try:
            with self._one_change:
                self._call(self._client.load_model, name, client_timeout=self._load_timeout_s)
        except Unavailable:
            raise
        except RmlError as error:
            raise LoadFailed(tidy(self.reason(name) or error.message)) from error

    def unload(self, name: str) -> None:
        with self._one_change:
            self._call(self._client.unload_model, name, unload_dependents=True, client_timeout=self._load_timeout_s)

    def infer(
        self, name: str, version: int, signature: Signature, arrays: Mapping[str, Any], timeout: float
    ) -> dict[str, Any]:
        """Outputs by name for one request, straight to Triton."""
        inputs = []
        for spec in signature.inputs:
            tensor = self._grpc.InferInput(spec.name, list(arrays[spec.name].shape), spec.datatype)
            tensor.set_data_from_numpy(arrays[spec.name])
            inputs.append(tensor)
        wanted = [self._grpc.InferRequestedOutput(spec.name) for spec in signature.outputs]
        answer = self._call(
            self._client.infer, name, inputs, model_version=str(version), outputs=wanted, client_timeout=timeout
        )
        outputs = {spec.name: answer.as_numpy(spec.name) for spec in signature.outputs}
        return {name: array for name, array in outputs.items() if array is not None}

    def _call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        from tritonclient.utils import InferenceServerException

        try:
            return function(*arguments, **options)
        except InferenceServerException as error:
            status = str(error.status() or "")
            if "UNAVAILABLE" in status or "DEADLINE" in status or "CANCELLED" in status:
                kind = Slow if "DEADLINE" in status else Unavailable
                raise kind(
                    f"Triton does not answer ({error.message()})", hint="see its log: rml logs triton"
                ) from error
            raise RmlError(str(error.message())) from error


def tidy(reason: str) -> str:
    """Triton's reason without the stub's traceback frames: the exception itself is what tells a person something."""
    lines = [line.strip() for line in reason.strip().splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("At:", "/"))]
    return " ".join(told) or reason
