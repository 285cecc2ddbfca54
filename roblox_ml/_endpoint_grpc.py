"""The gRPC side of an endpoint: the same predictions over the other protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._addresses import grpc_address
from ._asked import ID_HEADER, about, answered, unit_of
from ._credentials import token_for
from ._predict import InputError, Prediction, from_grpc, said_by, to_grpc
from ._ranking import Ranking
from .errors import MissingExtra, NotFound, NotRunning, RemoteError

if TYPE_CHECKING:
    from ._endpoint import Endpoint

__all__ = ["GrpcEndpoint"]


class GrpcEndpoint:
    """The gRPC side of an endpoint."""

    def __init__(self, owner: Endpoint) -> None:
        self._owner = owner
        self._channel: Any = None

    @property
    def address(self) -> str:
        """host:port of the door's gRPC server."""
        return grpc_address()

    def predict(
        self,
        inputs: Any,
        *,
        unit: str | int | None = None,
        context: Mapping[str, Any] | None = None,
        timeout: float = 30.0,
    ) -> Prediction:
        """The same as `Endpoint.predict`, over gRPC.

        Raises:
            MissingExtra: grpcio or tritonclient is not installed.
            InputError, NotFound, RemoteError, NotRunning: as over REST.
        """
        try:
            import grpc
            from tritonclient.grpc import service_pb2 as v2
        except ModuleNotFoundError as error:
            raise MissingExtra(f"gRPC needs {error.name!r}", fix='pip install "roblox-ml[serving]"') from error
        request = to_grpc(v2, self._owner._encode(inputs))
        request.model_name = self._owner.name
        if self._channel is None:
            self._channel = grpc.insecure_channel(
                self.address, options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
            )
        call = self._channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            v2.ModelInferRequest.SerializeToString,
            v2.ModelInferResponse.FromString,
        )
        who = about(unit, context)
        if not who.get("x-rml-unit", "").isascii():
            raise InputError(
                f"unit is {unit!r}", why="gRPC carries ASCII only", fix="ask over REST: endpoint.predict(…)"
            )
        metadata = list(who.items())
        if token := token_for(self._owner._door):
            metadata.append(("authorization", f"Bearer {token}"))
        try:
            response, done = call.with_call(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise self._error(error) from None
        return answered(from_grpc(response), dict(done.trailing_metadata() or ()), said_by(response))

    def rank(
        self,
        user: str | int | None,
        candidates: Any,
        features: Mapping[str, float] | None = None,
        *,
        unit: str | int | None = None,
        context: Mapping[str, Any] | None = None,
        timeout: float = 30.0,
    ) -> Ranking:
        """The same as `Endpoint.rank`, over gRPC; what the model takes is asked over REST, once.

        Raises:
            As `Endpoint.rank` and `predict`.
        """
        asked = self._owner._to_rank(user, candidates, features)
        who = unit if unit is not None else unit_of(user)
        return Ranking(self.predict(asked, unit=who, context=context, timeout=timeout))

    def _error(self, error: Any) -> RemoteError | NotRunning:
        self._owner._inputs = None
        code, details = error.code().name, error.details() or ""
        where = f"endpoint {self._owner.name!r} over gRPC"
        if code == "NOT_FOUND":
            return NotFound(details, code=code, where=where, status=404)
        if code == "UNAVAILABLE" and ID_HEADER not in dict(error.trailing_metadata() or ()):  # not the door's word
            return NotRunning(
                f"the door at {self.address} does not answer: {details}",
                fix="start it with `rml up`, or set RML_DOOR_GRPC",
            )
        return RemoteError(f"{code}: {details}", code=code, where=where)
