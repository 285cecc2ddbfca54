"""The same over gRPC, where grpcio and tritonclient are installed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._predict import Prediction, from_grpc, said_by, to_grpc
from ..errors import MissingExtra, RemoteError
from .rest import Late, Lost

if TYPE_CHECKING:
    from .asking import Attempt, Reached
    from .client import Direct
    from .servers import Server
    from .view import Target

__all__ = ["GrpcDirect"]

# As the door has it: what of a server's answers is the client's own mistake; everything else a challenger can be stood in for.
_CLIENTS = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "CANCELLED"})
_METHOD = "/inference.GRPCInferenceService/ModelInfer"


class GrpcDirect:
    """The gRPC side of a direct client."""

    def __init__(self, owner: Direct) -> None:
        self._owner = owner

    def predict(
        self,
        inputs: Any,
        *,
        unit: str | int | None = None,
        context: Mapping[str, Any] | None = None,
        timeout: float = 30.0,
    ) -> Prediction:
        """As `Direct.predict`.

        Raises:
            MissingExtra: grpcio or tritonclient is not installed. The rest as over REST.
        """
        request = to_grpc(_messages(), self._owner._encode(inputs))
        response, reached = self._ask(request, unit, context, timeout)
        return self._owner._prediction(from_grpc(response), reached, said_by(response))

    def infer(
        self,
        request: Any,
        *,
        unit: str | int | None = None,
        context: Mapping[str, Any] | None = None,
        timeout: float = 30.0,
    ) -> Any:
        """A `ModelInferRequest` (whatever model it names) to the version that is decided on; its `ModelInferResponse`.

        Raises:
            As `predict`.
        """
        return self._ask(request, unit, context, timeout)[0]

    def _ask(
        self, request: Any, unit: str | int | None, context: Mapping[str, Any] | None, timeout: float
    ) -> tuple[Any, Reached]:
        owner = self._owner
        reached = owner._call(self._attempt(request), owner._facts(unit, context), timeout)
        if reached.status >= 400:
            code, said = reached.payload
            raise RemoteError(
                f"{code}: {said}", code=code, where=f"{reached.target.key} of endpoint {owner.name!r} over gRPC"
            )
        return reached.payload, reached

    def _attempt(self, request: Any) -> Attempt:
        v2 = _messages()
        import grpc

        def attempt(server: Server, target: Target, deadline: float) -> tuple[int, Any]:
            call = self._owner._channel(server).unary_unary(
                _METHOD, v2.ModelInferRequest.SerializeToString, v2.ModelInferResponse.FromString
            )
            named = v2.ModelInferRequest()
            named.CopyFrom(request)
            named.model_name, named.model_version = target.triton_model, str(target.version)
            try:
                return 200, call(named, timeout=max(0.001, deadline - time.monotonic()))
            except grpc.RpcError as error:
                code, said = error.code().name, error.details() or ""
                if code in ("UNAVAILABLE", "NOT_FOUND"):
                    raise Lost(f"{code}: {said}") from error
                if code == "DEADLINE_EXCEEDED":
                    raise Late(said) from error
                return (400 if code in _CLIENTS else 500), (code, said)

        return attempt


def _messages() -> Any:
    try:
        from tritonclient.grpc import service_pb2
    except ModuleNotFoundError as error:
        raise MissingExtra(f"gRPC needs {error.name!r}", fix='pip install "roblox-ml[serving]"') from error
    return service_pb2
