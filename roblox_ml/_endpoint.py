"""A deployed model as an object: ask it over REST or gRPC, move it between versions, look at it."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from ._addresses import control, door_url
from ._asked import VERSION_HEADER, about, answered, unit_of
from ._credentials import token_for
from ._endpoint_grpc import GrpcEndpoint
from ._predict import (
    InputError,
    Prediction,
    Tensor,
    encode,
    from_rest,
    parameters_of,
    to_rest,
)
from ._ranking import Ranking, inputs_of
from .errors import NotFound, NotRunning, RemoteError

__all__ = ["Endpoint"]

_POLL_S = 0.1
_MODEL_HEADER = "x-rml-model"


class Endpoint:
    """A model behind the door: one name, whichever version answers.

    Attributes:
        name: the endpoint's name.
        url: where any Open Inference Protocol v2 client posts to.
        grpc: the same predictions over gRPC.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._door = door_url()
        self.url = f"{self._door}/v2/models/{name}/infer"
        self.grpc = GrpcEndpoint(self)
        self._http: Any = None
        self._pid = 0  # of the process whose connections these are
        self._inputs: list[dict[str, Any]] | None = None

    @property
    def version(self) -> int | None:
        """The version that answers now; None while none does."""
        serving = self._serving()
        return serving[1] if serving else None

    def predict(
        self,
        inputs: Any,
        *,
        unit: str | int | None = None,
        context: Mapping[str, Any] | None = None,
        timeout: float = 30.0,
    ) -> Prediction:
        """Predictions over REST: a list for a model with one input (texts, rows), else a dict of input name to list or array.

        Arrays and DataFrames are taken too.

        Args:
            unit: who asks (a user's id, or whatever the endpoint's unit is): experiments and canaries keep to it.
            context: attributes for targeting, and values of other units by name.

        Raises:
            InputError: the values do not fit the model's inputs.
            NotFound, RemoteError, NotRunning: the door's own answer.
        """
        body, head_length = to_rest(self._encode(inputs))
        headers = {
            "content-type": "application/octet-stream",
            "inference-header-content-length": str(head_length),
            "x-rml-timeout-ms": str(max(1, int(timeout * 1000))),
            **{name: value.encode() for name, value in about(unit, context).items()},
        }
        answer = self._send("POST", "/infer", content=body, headers=headers, timeout=timeout + 5)
        self._raise_for(answer)
        length = answer.headers.get("inference-header-content-length")
        head = int(length) if length else None
        said = parameters_of(answer.content, head)
        return answered(from_rest(answer.content, head), dict(answer.headers), said)

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
        """The best of the candidates for a user, best first: of an endpoint whose model was made with `Model.ranking`.

        Args:
            user: the key of the user's features; None: nobody in particular.
            candidates: ids, as many as 10,000.
            features: numbers that only the caller knows (the hour, a slot).
            unit: who asks, for experiments and canaries: the user, where nothing else is said and the user's key can be a unit.
            context: attributes for targeting, and values of other units by name.

        Raises:
            InputError: the endpoint ranks nothing, or these are no ids and numbers.
            NotFound, RemoteError, NotRunning: the door's own answer.
        """
        asked = self._to_rank(user, candidates, features)
        who = unit if unit is not None else unit_of(user)
        return Ranking(self.predict(asked, unit=who, context=context, timeout=timeout))

    def _to_rank(self, user: Any, candidates: Any, features: Mapping[str, float] | None) -> dict[str, list[Any]]:
        """The inputs of a question to a ranker; looked up again where they do not fit what was known."""
        known = self._inputs is not None
        try:
            return inputs_of(self.name, self.inputs(), user, candidates, features)
        except InputError:
            if not known:
                raise
            self._inputs = None  # what was known may be an older version's
            return inputs_of(self.name, self.inputs(), user, candidates, features)

    def inputs(self) -> list[dict[str, Any]]:
        """What the model takes: name, datatype, shape of each input. Asked once, and again when something no longer fits."""
        if self._inputs is None:
            answer = self._get("")
            self._raise_for(answer)
            self._inputs = list(answer.json()["inputs"])
        return self._inputs

    def canary(self, version: int, share: float = 0.05, *, wait: bool = True, timeout: float = 120.0) -> Endpoint:
        """Let `version` answer a share of the units, or change the share of the canary that runs: growing keeps who is in.

        Raises:
            NotRunning, RemoteError: the version is not ready; until it is, the champion answers.
        """
        from ._rollouts.waiting import wait_for
        from ._rollouts.wishes import as_version, in_parts

        version = as_version(version)
        with control() as plane:
            model = plane.start_canary(self.name, version, in_parts(share))["model"]
            if wait:
                wait_for(plane, [f"{model}/{version}"], timeout, lambda line: None)
        return self

    def promote(self, version: int | None = None, *, timeout: float = 120.0) -> Endpoint:
        """Answer with another version from now on: the canary's when none is named.

        Moves the alias the endpoint follows, or the endpoint's own pin.
        """
        with control() as plane:
            if version is None:
                version = int(plane.promote_canary(self.name)["version"])
                return self.wait_for(version, timeout)
            current = plane.endpoint(self.name)
            if alias := current.get("alias"):
                plane.promote(current["model"], alias, version, reason=f"promoted through endpoint {self.name}")
            else:
                plane.put_endpoint(self.name, current["model"], version=version)
        return self.wait_for(version, timeout)

    def rollback(self, *, timeout: float = 120.0) -> Endpoint:
        """Take the canary back; without one, answer with the version before. Nothing is loaded for it: that one stays resident."""
        with control() as plane:
            answer = plane.rollback_endpoint(self.name)
        return self.wait_for(int(answer["version"]), timeout)

    def shadow_report(self, name: str) -> Any:
        """How the answers of a shadow differ from those that clients got (`rml.shadow`)."""
        from ._rollouts.shadow_reports import ShadowReport

        with control() as plane:
            return ShadowReport(plane.shadow_report(self.name, name))

    def rollbacks(self) -> list[dict[str, Any]]:
        """What was taken back automatically, the latest first, each with its evidence."""
        with control() as plane:
            return list(plane.rollbacks(self.name))

    def status(self) -> dict[str, Any]:
        """What is wished and what is: model, alias, desired version and digest, `serving` (the version that answers)."""
        with control() as plane:
            wished = plane.endpoint(self.name)
        return {**wished, "serving": self.version, "url": self.url}

    def curl(self) -> None:
        """Print a curl line that asks this endpoint."""
        data = []
        for entry in self.inputs():
            shape = [1 if int(size) < 0 else int(size) for size in entry["shape"]]
            count = 1
            for size in shape:
                count *= size
            sample: Any = "gg, well played!" if entry["datatype"] == "BYTES" else 0
            data.append(
                {"name": entry["name"], "datatype": entry["datatype"], "shape": shape, "data": [sample] * count}
            )
        body = json.dumps({"inputs": data}, ensure_ascii=False)
        print(f"curl -s {shlex.quote(self.url)} -H 'content-type: application/json' -d {shlex.quote(body)}")

    def __repr__(self) -> str:
        return f"Endpoint({self.name!r}, url={self.url!r})"

    def _repr_html_(self) -> str:
        status: dict[str, Any] = {"url": self.url}
        try:  # what is wished is worth showing while no door answers
            with control() as plane:
                status.update(plane.endpoint(self.name))
            status["serving"] = self.version
        except (NotRunning, RemoteError) as error:
            status["problem"] = str(error)
        if canary := status.get("canary"):
            status["canary"] = f"version {canary['version']} for {canary['share'] / 100:g} % of units"
        for what in ("experiments", "shadows"):
            status[what] = ", ".join(one["name"] for one in status.get(what) or ())
        shown = [
            (key, status[key])
            for key in (
                "model",
                "alias",
                "version",
                "serving",
                "digest",
                "canary",
                "experiments",
                "shadows",
                "url",
                "problem",
            )
            if status.get(key)
        ]
        rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(str(value))}</td></tr>" for key, value in shown)
        return f"<table><caption>endpoint {escape(self.name)}</caption>{rows}</table>"

    def wait_for(self, version: int, timeout: float = 120.0, say: Callable[[str], None] | None = None) -> Endpoint:
        """Return when the door answers with `version`.

        Raises:
            RemoteError: a model server refused that version (its reason is in the message).
            NotRunning: it was not ready within `timeout` seconds.
        """
        started = time.monotonic()
        said = ""
        with control() as plane:
            model = plane.endpoint(self.name)["model"]
            while (serving := self._serving()) != (model, version):
                states = _states(plane.call("GET", "/v1/servers")["servers"], model, version)
                still = f"{serving[0]}/{serving[1]} goes on answering" if serving else "nothing answers yet"
                if states and all(state == "failed" for _, state, _ in states):
                    raise RemoteError(
                        f"no model server takes version {version} of endpoint {self.name!r}; {still}",
                        why="; ".join(f"{server}: {reason or 'no reason given'}" for server, _, reason in states),
                        fix="`rml logs agent` has the whole story", code="refused",
                    )  # fmt: skip
                news = ", ".join(f"{server}: {state}" for server, state, _ in states)
                if say and news and news != said:
                    say(f"  {news}")
                    said = news
                if time.monotonic() - started > timeout:
                    raise NotRunning(
                        f"endpoint {self.name!r} did not answer with version {version} within {timeout:g} s; {still}",
                        why=news or "no model server has reported that version", fix="look at `rml status` and `rml logs agent`",
                    )  # fmt: skip
                time.sleep(_POLL_S)
        self._inputs = None
        if say:
            say(f"  version {version} answers at {self.url} after {time.monotonic() - started:.1f} s")
        return self

    def _encode(self, inputs: Any) -> list[Tensor]:
        known = self._inputs is not None
        try:
            return encode(inputs, self.inputs())
        except InputError:
            if not known:
                raise
        self._inputs = None  # what was known may be an older version's
        return encode(inputs, self.inputs())

    def _serving(self) -> tuple[str, int] | None:
        """(model, version) that the door answers with now."""
        answer = self._get("/ready")
        return (
            (answer.headers[_MODEL_HEADER], int(answer.headers[VERSION_HEADER])) if answer.status_code == 200 else None
        )

    def _get(self, what: str) -> Any:
        return self._send("GET", what, timeout=35.0)

    def _send(self, method: str, what: str, **arguments: Any) -> Any:
        import httpx

        if self._http is None or self._pid != os.getpid():  # two processes on one connection get each other's answers
            self._http, self._pid = httpx.Client(), os.getpid()
        if token := token_for(self._door):
            arguments["headers"] = {**arguments.get("headers", {}), "authorization": f"Bearer {token}"}
        try:
            return self._http.request(method, f"{self._door}/v2/models/{self.name}{what}", **arguments)
        except httpx.HTTPError as error:
            raise NotRunning(
                f"the door at {self._door} does not answer ({type(error).__name__}: {error})",
                fix="start it with `rml up`, or set RML_DOOR_URL to where it runs",
            ) from error

    def _raise_for(self, answer: Any) -> None:
        if answer.status_code < 400:
            return
        self._inputs = None  # the next call asks again: another version may take other inputs
        try:
            message = str(answer.json()["error"])
        except (ValueError, KeyError, TypeError):
            message = f"HTTP {answer.status_code}: {answer.text[:300]}"
        kind = NotFound if answer.status_code == 404 else RemoteError
        raise kind(message, status=answer.status_code, where=f"endpoint {self.name!r}")


def _states(servers: Sequence[Mapping[str, Any]], model: str, version: int) -> list[tuple[str, str, str]]:
    """(server, state, reason) of a version on every living model server that has said something about it."""
    return [
        (str(server["name"]), str(entry["state"]), str(entry.get("reason") or ""))
        for server in servers
        if server.get("alive")
        for entry in server["models"]
        if (entry["model"], entry["version"]) == (model, version)
    ]
