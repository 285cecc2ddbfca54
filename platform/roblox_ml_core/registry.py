"""The small typed client of the control plane's REST API, for services (agent, door) and for the SDK.

Synchronous on purpose: its users are background threads and notebooks. Errors come back as the classes of
`roblox_ml_core.errors` that the control plane raised; a control plane that does not answer is `Unavailable`.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .digests import FileEntry
from .errors import Unavailable, from_json
from .settings import ControlPlaneSettings, HomeSettings

__all__ = ["DesiredModel", "DesiredModels", "ModelState", "RegistryClient", "default_actor"]


@dataclass(frozen=True, slots=True)
class DesiredModel:
    """A version that must be resident on a server, and every file it consists of."""

    model: str
    version: int
    digest: str
    manifest: Mapping[str, FileEntry]


@dataclass(frozen=True, slots=True)
class DesiredModels:
    """All versions a server must hold; `generation` is what to pass as `after` next time."""

    generation: int
    models: tuple[DesiredModel, ...]


@dataclass(frozen=True, slots=True)
class ModelState:
    """What an agent says of one version: `state` is ready, loading, pulling or failed; `reason` says why it failed."""

    model: str
    version: int
    digest: str
    state: str
    reason: str = ""


def default_actor() -> str:
    """Who the histories shall name: ``RML_ACTOR``, else user@host."""
    if named := os.environ.get("RML_ACTOR"):
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


class RegistryClient:
    """Calls to one control plane. Without arguments: the address of ``RML_CONTROL_URL`` and the token of this home."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        actor: str | None = None,
        timeout: float = 30.0,
        transport: Any = None,
    ) -> None:
        import httpx  # a tenth of a second: paid by the first client, not by `import`

        self.url = (url or ControlPlaneSettings().base_url).rstrip("/")
        token = token if token is not None else HomeSettings().read_token()
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.actor = actor or default_actor()
        headers["x-rml-actor"] = quote(self.actor, safe=" @.+-_:/")
        self._timeout = timeout
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=timeout,
            transport=transport,
            verify=self.url.startswith("https:"),  # reading the system's certificates takes longer than most calls
        )

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        wait: float = 0.0,
    ) -> Any:
        """One request and its decoded JSON; `wait` seconds are added to the time-out for a long poll."""
        import httpx

        query = {key: value for key, value in (params or {}).items() if value is not None}
        # An explicit encoder: NaN metrics must reach the server, which stores them as words and fails the gate on them.
        content = None if body is None else json.dumps(body).encode()
        headers = {} if content is None else {"content-type": "application/json"}
        try:
            answer = self._http.request(
                method, path, params=query, content=content, headers=headers, timeout=self._timeout + wait
            )
        except httpx.HTTPError as error:
            raise Unavailable(
                f"the control plane at {self.url} does not answer ({type(error).__name__}: {error})",
                hint="start it with `rml up`, or set RML_CONTROL_URL to where it runs",
            ) from error
        try:
            decoded = answer.json() if answer.content else None
        except ValueError:
            decoded = answer.text
        if answer.is_error:
            raise from_json(answer.status_code, decoded)
        return decoded

    # -- models ----------------------------------------------------------------------------------------------------

    def register(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST a version; the answer has name, version, digest, created, gate and alias."""
        return dict(self.call("POST", f"/v1/models/{name}/versions", body))

    def models(self, query: str | None = None) -> list[dict[str, Any]]:
        return list(self.call("GET", "/v1/models", params={"q": query})["models"])

    def model(self, name: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/v1/models/{name}"))

    def versions(self, name: str) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/v1/models/{name}/versions")["versions"])

    def version(self, name: str, version: int) -> dict[str, Any]:
        return dict(self.call("GET", f"/v1/models/{name}/versions/{version}"))

    def tag(self, name: str, version: int, tags: Mapping[str, str | None]) -> dict[str, Any]:
        """Set tags; a tag set to None is removed."""
        return dict(self.call("PATCH", f"/v1/models/{name}/versions/{version}", {"tags": dict(tags)}))

    def delete_version(self, name: str, version: int) -> dict[str, Any]:
        return dict(self.call("DELETE", f"/v1/models/{name}/versions/{version}"))

    # -- aliases ---------------------------------------------------------------------------------------------------

    def alias(self, name: str, alias: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/v1/models/{name}/aliases/{alias}"))

    def alias_history(self, name: str, alias: str) -> list[dict[str, Any]]:
        return list(self.call("GET", f"/v1/models/{name}/aliases/{alias}/history")["history"])

    def promote(
        self, name: str, alias: str, version: int, *, expected_generation: int | None = None, reason: str = ""
    ) -> dict[str, Any]:
        """Point an alias at a version; with `expected_generation` only if nobody moved it since (else `Conflict`)."""
        body = {"version": version, "expected_generation": expected_generation, "reason": reason}
        return dict(self.call("PUT", f"/v1/models/{name}/aliases/{alias}", body))

    def rollback(self, name: str, alias: str, *, expected_generation: int | None = None) -> dict[str, Any]:
        body = {"expected_generation": expected_generation}
        return dict(self.call("POST", f"/v1/models/{name}/aliases/{alias}/rollback", body))

    # -- endpoints -------------------------------------------------------------------------------------------------

    def put_endpoint(
        self,
        endpoint: str,
        model: str,
        *,
        alias: str | None = None,
        version: int | None = None,
        policy: Mapping[str, Any] | None = None,
        unit: str | None = None,
        log: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Create or point an endpoint at a model's alias (it follows it) or at one version.

        `policy` has parts (`cache`, `queue`); a part that is left out stays as it is, and so do `unit`, `log` and `limits`.
        """
        body: dict[str, Any] = {"model": model, "alias": alias, "version": version}
        wishes = {"policy": policy, "log": log, "limits": limits}
        body |= {part: dict(wish) for part, wish in wishes.items() if wish is not None}
        if unit is not None:
            body["unit"] = unit
        return dict(self.call("PUT", f"/v1/endpoints/{endpoint}", body))

    def endpoints(self) -> list[dict[str, Any]]:
        return list(self.call("GET", "/v1/endpoints")["endpoints"])

    def endpoint(self, endpoint: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/v1/endpoints/{endpoint}"))

    def delete_endpoint(self, endpoint: str) -> dict[str, Any]:
        return dict(self.call("DELETE", f"/v1/endpoints/{endpoint}"))

    def rollback_endpoint(self, endpoint: str) -> dict[str, Any]:
        return dict(self.call("POST", f"/v1/endpoints/{endpoint}/rollback"))

    def withdraw_endpoint(
        self, endpoint: str, model: str, *, alias: str | None = None, version: int | None = None
    ) -> dict[str, Any]:
        """Take the move to that target back, if it is still the endpoint's last: `withdrawn` says whether it was."""
        body = {"model": model, "alias": alias, "version": version}
        return dict(self.call("POST", f"/v1/endpoints/{endpoint}/rollback", body))

    # -- rollouts: what answers beside the champion -----------------------------------------------------------------

    def start_canary(
        self, endpoint: str, version: int, share: int, *, isolated: bool = False, expect: int | None = None
    ) -> dict[str, Any]:
        """Let `share` 10,000ths of the units be answered by `version`, or change the running canary's share."""
        body = {"version": version, "share": share, "isolated": isolated, "expect": expect}
        return dict(self.call("POST", f"/v1/endpoints/{endpoint}/canary", body))

    def end_canary(self, endpoint: str, reason: str = "") -> dict[str, Any]:
        return dict(self.call("DELETE", f"/v1/endpoints/{endpoint}/canary", {"reason": reason}))

    def promote_canary(self, endpoint: str) -> dict[str, Any]:
        return dict(self.call("POST", f"/v1/endpoints/{endpoint}/canary/promote"))

    def put_shadow(
        self, endpoint: str, shadow: str, ref: str, *, share: int = 10_000, isolated: bool = False
    ) -> dict[str, Any]:
        body = {"ref": ref, "share": share, "isolated": isolated}
        return dict(self.call("PUT", f"/v1/endpoints/{endpoint}/shadows/{shadow}", body))

    def delete_shadow(self, endpoint: str, shadow: str) -> dict[str, Any]:
        return dict(self.call("DELETE", f"/v1/endpoints/{endpoint}/shadows/{shadow}"))

    def shadow_report(self, endpoint: str, shadow: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/v1/endpoints/{endpoint}/shadows/{shadow}/report"))

    def rollbacks(self, endpoint: str) -> list[dict[str, Any]]:
        """The automatic rollbacks of the endpoint, newest first, each with its evidence."""
        return list(self.call("GET", f"/v1/endpoints/{endpoint}/rollbacks")["rollbacks"])

    def layers(self) -> list[dict[str, Any]]:
        return list(self.call("GET", "/v1/layers")["layers"])

    def layer(self, layer: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/v1/layers/{layer}"))

    def put_layer(self, layer: str, unit: str = "user_id") -> dict[str, Any]:
        return dict(self.call("PUT", f"/v1/layers/{layer}", {"unit": unit}))

    def delete_layer(self, layer: str) -> dict[str, Any]:
        return dict(self.call("DELETE", f"/v1/layers/{layer}"))

    def experiments(self, running: bool | None = None) -> list[dict[str, Any]]:
        return list(self.call("GET", "/v1/experiments", params={"running": running})["experiments"])

    def experiment(self, experiment: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/v1/experiments/{experiment}"))

    def put_experiment(self, experiment: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Begin it, or change the share, metrics and guardrails of the one that runs."""
        return dict(self.call("PUT", f"/v1/experiments/{experiment}", body))

    def stop_experiment(self, experiment: str, reason: str = "", winner: str | None = None) -> dict[str, Any]:
        return dict(self.call("POST", f"/v1/experiments/{experiment}/stop", {"reason": reason, "winner": winner}))

    def experiment_report(self, experiment: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/v1/experiments/{experiment}/report", wait=60.0))

    def holdouts(self) -> list[dict[str, Any]]:
        return list(self.call("GET", "/v1/holdouts")["holdouts"])

    def put_holdout(
        self, holdout: str, share: int, *, unit: str = "user_id", layers: Sequence[str] = ()
    ) -> dict[str, Any]:
        body = {"unit": unit, "share": share, "layers": list(layers)}
        return dict(self.call("PUT", f"/v1/holdouts/{holdout}", body))

    def delete_holdout(self, holdout: str) -> dict[str, Any]:
        return dict(self.call("DELETE", f"/v1/holdouts/{holdout}"))

    def switched_off(self) -> dict[str, Any]:
        return dict(self.call("GET", "/v1/kill"))

    def kill(self, **what: Any) -> dict[str, Any]:
        """`experiments`, `canaries`, `shadows` (true: off), `endpoints` (at which only the champion may answer)."""
        return dict(self.call("PUT", "/v1/kill", what))

    # -- what doors and agents poll --------------------------------------------------------------------------------

    def snapshot(self, after: int | None = None, wait: float = 0.0) -> dict[str, Any]:
        """The policy snapshot; with `after`, the answer waits up to `wait` seconds for a newer one."""
        return dict(self.call("GET", "/v1/snapshot", params={"after": after, "wait": wait}, wait=wait))

    def desired(self, server: str, after: int | None = None, wait: float = 0.0, role: str = "general") -> DesiredModels:
        """The versions that must be resident on `server`; with `after`, waits up to `wait` seconds for a change."""
        path = f"/v1/servers/{server}/desired"
        answer = self.call("GET", path, params={"after": after, "wait": wait, "role": role}, wait=wait)
        models = tuple(
            DesiredModel(model["model"], int(model["version"]), model["digest"], model["manifest"])
            for model in answer["models"]
        )
        return DesiredModels(int(answer["generation"]), models)

    def report(self, server: str, http: str, grpc: str, models: Sequence[ModelState]) -> None:
        """Say what a server holds. Silence for longer than the control plane's limit means not ready."""
        states = [
            {"model": m.model, "version": m.version, "digest": m.digest, "state": m.state, "reason": m.reason}
            for m in models
        ]
        self.call("PUT", f"/v1/servers/{server}/status", {"http": http, "grpc": grpc, "models": states})

    # -- upkeep ----------------------------------------------------------------------------------------------------

    def gc(self, *, dry_run: bool = True, **options: Any) -> dict[str, Any]:
        return dict(self.call("POST", "/v1/gc", {"dry_run": dry_run, **options}))

    def ready(self) -> bool:
        """Whether the control plane answers and is ready."""
        try:
            self.call("GET", "/readyz")
        except Exception:  # any failure at all means: not ready
            return False
        return True
