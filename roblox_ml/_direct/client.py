"""`rml.direct("feed")`: decide here, ask a model server, say who saw which arm."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from types import TracebackType
from typing import Any

from .. import _siblings
from .._asked import about
from .._predict import InputError, Prediction, encode, from_rest, parameters_of, to_rest
from .._rollouts.wishes import WishError
from ..errors import NotRunning, RemoteError
from .asking import Asker, Attempt, Reached
from .exposing import Exposures
from .following import Follower, SnapshotTooOld
from .grpc_side import GrpcDirect
from .rest import Lost, Reply
from .servers import Server, Servers
from .view import NeedsDoor, Target, look

__all__ = ["Answer", "Direct", "NeedsDoor", "SnapshotTooOld", "direct"]

_MAX_CONTEXT = 4096
# What a model server is told of a caller's headers; ours and credentials are not its business.
_FORWARDED = frozenset(
    {"content-type", "content-encoding", "inference-header-content-length", "traceparent", "tracestate"}
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A model server's own answer, and how it came about. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    version: int
    inference_id: str
    arms: dict[str, str] = field(default_factory=dict)
    fallback: bool = False


class Direct:
    """An endpoint, asked without the door. For many threads; make one per process and endpoint, and keep it.

    Attributes:
        name: the endpoint's name.
        grpc: the same over gRPC.
    """

    def __init__(self, name: str, *, max_age: float = 60.0, most_exposures: int = 100_000) -> None:
        if not 0 < max_age < float("inf"):
            raise WishError(f"max_age is {max_age!r}", why="a snapshot is used for so many seconds", fix="max_age=60")
        self.name = name
        self.grpc = GrpcDirect(self)
        self._lacks_model = _siblings.load("roblox_ml_core.http.v2").lacks_model
        servers = self._servers = Servers()
        self._follower = Follower(
            name,
            max_age,
            lambda document, before: look(document, name, before),
            lambda view: servers.update(view.addresses),
        )
        try:
            refusal = self._follower.view.refusal
            if refusal is not None and refusal.kind is not NotRunning:  # what is not ready may become so
                raise refusal.error()
            self._exposures = Exposures(name, most=most_exposures)
        except BaseException:
            self._follower.stop()
            raise
        self._asker = Asker(name, self._follower, servers, self._exposures)
        self._end = weakref.finalize(self, _abandon, self._follower, self._exposures, self._servers)
        self._end.atexit = False  # the line of exposures sees to its own end

    def predict(
        self,
        inputs: Any,
        *,
        unit: str | int | None = None,
        context: Mapping[str, Any] | None = None,
        timeout: float = 30.0,
    ) -> Prediction:
        """As `Endpoint.predict`: the same arguments, the same answer.

        Raises:
            InputError: the values do not fit the model's inputs.
            SnapshotTooOld: the control plane has been away for longer than `max_age`.
            NotFound, NeedsDoor, NotRunning: nothing can answer, or no model server did.
            RemoteError: the model's own refusal, or the deadline.
        """
        about = self._facts(unit, context)
        body, head_length = to_rest(self._encode(inputs))
        headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(head_length)}
        reached = self._call(self._post(headers, body), about, timeout)
        reply: Reply = reached.payload
        if reply.status >= 400:
            raise RemoteError(
                _error_text(reply), status=reply.status, where=f"{reached.target.key} of endpoint {self.name!r}"
            )
        length = reply.headers.get("inference-header-content-length")
        head = int(length) if length else None
        return self._prediction(from_rest(reply.body, head), reached, parameters_of(reply.body, head))

    def infer(
        self,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        unit: str | int | None = None,
        context: Mapping[str, Any] | None = None,
        timeout: float = 30.0,
    ) -> Answer:
        """A v2 body as it is, to the version that is decided on; the answer as it is, whatever its status.

        Args:
            headers: of the body (`content-type`, `content-encoding`, `inference-header-content-length`) and of traces. Others are
                not passed on, ours least of all.

        Raises:
            As `predict`, except what the model says.
        """
        forwarded = {name.lower(): value for name, value in (headers or {}).items() if name.lower() in _FORWARDED}
        for name, value in forwarded.items():
            if not value.isascii() or not value.isprintable():
                raise InputError(f"header {name} is {value[:80]!r}", fix="printable ASCII, on one line")
        forwarded.setdefault("content-type", "application/json")
        reached = self._call(self._post(forwarded, bytes(body)), self._facts(unit, context), timeout)
        reply: Reply = reached.payload
        return Answer(
            reply.status, reply.headers, reply.body, reached.target.version, reached.identity, reached.arms, reached.fallback
        )  # fmt: skip

    def inputs(self) -> list[dict[str, Any]]:
        """What the endpoint takes: name, datatype, shape of each input."""
        view = self._follower.current()
        view.ready()
        return [dict(one) for one in view.inputs]

    def stats(self) -> dict[str, Any]:
        """What this process did and knows. `requests` = `errors` + all of `answered`; `exposures`: offered = sent + waiting + dropped."""
        view = self._follower.view
        return {
            "endpoint": self.name,
            **self._asker.counts(),
            "exposures": self._exposures.accounts(),
            "snapshot": {
                "generation": view.generation, "digest": view.digest, "age_s": self._follower.age,
                "max_age_s": self._follower.max_age, "problem": self._follower.problem,
            },
            "champion": view.champion.key if view.champion else None,
            "left_out": dict(view.left_out),
            "servers": self._servers.facts(),
            "problem": self._exposures.problem,
        }  # fmt: skip

    def flush(self) -> dict[str, int]:
        """Send the exposures that wait: `{"offered", "sent", "dropped", "waiting"}`.

        Raises:
            NotRunning, RemoteError: the door does not take them.
        """
        return self._exposures.flush()

    def close(self, timeout: float = 5.0) -> dict[str, int]:
        """Follow no more, send the exposures that wait, close the connections. What became of the exposures is returned."""
        self._follower.stop()
        self._end.detach()
        accounts = self._exposures.close(timeout)
        self._servers.close()
        return accounts

    def __enter__(self) -> Direct:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        view = self._follower.view
        answers = f"version {view.champion.version}" if view.champion else "nothing answers"
        return f"<rml.direct {self.name}: {answers}, snapshot {self._follower.age:.1f} s old>"

    def _repr_html_(self) -> str:
        known = self.stats()
        snapshot = known["snapshot"]
        rows = {
            "champion": known["champion"] or "nothing answers",
            "snapshot": f"generation {snapshot['generation']}, {snapshot['age_s']:.1f} s old, at most {snapshot['max_age_s']:g} s",
            "requests": f"{known['requests']}, {known['errors']} without an answer, {known['fallbacks']} answered by the champion instead",
            "exposures": ", ".join(f"{count} {what}" for what, count in known["exposures"].items()),
            "servers": ", ".join(known["servers"]) or "none",
            "left out": "; ".join(f"{key}: {why}" for key, why in known["left_out"].items()),
            "problem": "; ".join(filter(None, (snapshot["problem"], known["problem"]))),
        }
        cells = "".join(
            f"<tr><th>{escape(key)}</th><td>{escape(str(value))}</td></tr>" for key, value in rows.items() if value
        )
        return f"<table><caption>endpoint {escape(self.name)}, asked directly</caption>{cells}</table>"

    # What both protocols share

    def _facts(self, unit: str | int | None, context: Mapping[str, Any] | None) -> tuple[str | None, str]:
        """(unit, context as JSON), checked as for the door."""
        found = about(unit, context)
        text = found.get("x-rml-context", "")
        if len(text) > _MAX_CONTEXT:
            raise InputError(
                f"context has {len(text)} bytes",
                why=f"at most {_MAX_CONTEXT} are read",
                fix="send what targeting needs",
            )
        return found.get("x-rml-unit"), text

    def _encode(self, inputs: Any) -> list[Any]:
        wanted = self._asker.view().inputs
        if not wanted:
            raise RemoteError(
                f"the control plane does not say what endpoint {self.name!r} takes", fix="infer(body) needs no names"
            )
        return encode(inputs, wanted)

    def _call(self, attempt: Attempt, facts: tuple[str | None, str], timeout: float) -> Reached:
        return self._asker.call(attempt, *facts, timeout)

    def _post(self, headers: Mapping[str, str], body: bytes) -> Attempt:
        def attempt(server: Server, target: Target, deadline: float) -> tuple[int, Reply]:
            reply = server.rest.post(target.path, headers, body, deadline)
            if self._lacks_model(reply.status, reply.body):
                raise Lost(_error_text(reply))
            return reply.status, reply

        return attempt

    def _channel(self, server: Server) -> Any:
        return self._servers.channel(server)

    def _prediction(
        self, tensors: list[Any], reached: Reached, parameters: Mapping[str, Any] | None = None
    ) -> Prediction:
        return Prediction(
            tensors, version=reached.target.version, inference_id=reached.identity, arms=reached.arms, fallback=reached.fallback,
            parameters=parameters,
        )  # fmt: skip


def direct(endpoint: str, *, max_age: float = 60.0, most_exposures: int = 100_000) -> Direct:
    """An endpoint, asked without the door: this process follows the control plane, decides and asks the model servers.

    Exposures are logged through the door, in the background. Limits, the request log, shadows and the guard's counts are the
    door's and are lost; so is everything the door does to a request, so endpoints of texts and rankings are refused.

    Args:
        endpoint: its name.
        max_age: for how many seconds decisions may go on without news from the control plane. What was rolled back or switched off
            while it could not be reached goes on here for so long.
        most_exposures: how many may wait for the door; more are dropped and counted.

    Raises:
        NotFound: there is no such endpoint.
        NeedsDoor: its requests are prepared by the door.
        NotRunning, RemoteError: the control plane does not answer, or refuses.
    """
    return Direct(endpoint, max_age=max_age, most_exposures=most_exposures)


def _abandon(follower: Follower, exposures: Exposures, servers: Servers) -> None:
    """Nobody holds the client any more, and nobody closed it."""
    follower.stop()
    exposures.end_soon()
    servers.close()


def _error_text(reply: Reply) -> str:
    try:
        return str(json.loads(reply.body)["error"])[:500]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {reply.status}: {reply.body[:300].decode('utf-8', 'replace')}"
