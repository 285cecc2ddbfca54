"""The control plane as an ASGI application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from roblox_ml_core.errors import Forbidden, NotFound, RmlError, from_json
from roblox_ml_core.names import check_name
from roblox_ml_core.settings import ControlPlaneSettings, HomeSettings, IdentitySettings, MlflowSettings
from roblox_ml_core.storage import BlobStore
from starlette.exceptions import HTTPException

from .changes import Changes
from .context import Context
from .database import Database
from .guard import Guard
from .guarding.guardrails import Guardrails
from .guarding.service import Guardian
from .identity import routes as identity_routes
from .identity.authenticate import Authenticator
from .identity.policy import enforce
from .identity.refusals import Refusals
from .measures import make_registry
from .notifying import routes as notifying_routes
from .notifying.service import Notifier
from .projector import Projector
from .routes import endpoints, guarding, models, rollouts, store, upkeep
from .scheduling import routes as scheduling_routes
from .scheduling.service import Scheduler

__all__ = ["create_app"]

_LOG = logging.getLogger(__name__)


class ErrorDetail(BaseModel):
    code: str
    message: str
    hint: str = ""
    details: dict[str, Any] | None = None


class ErrorBody(BaseModel):
    """How every error looks."""

    error: ErrorDetail


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 403, 404, 405, 409, 413, 422, 429, 500, 503)
}


def create_app(
    settings: ControlPlaneSettings | None = None,
    home: HomeSettings | None = None,
    mlflow: MlflowSettings | None = None,
    identity: IdentitySettings | None = None,
) -> FastAPI:
    """Build the application; the database is migrated and the token made when they are not there yet."""
    settings, home, mlflow = settings or ControlPlaneSettings(), home or HomeSettings(), mlflow or MlflowSettings()
    identity = identity or IdentitySettings()
    changes = Changes()
    database = Database(settings.resolve_database_url(home), on_commit=changes.ring)
    database.migrate()
    blobs = BlobStore(home.store_url, token=None)
    projector = Projector(database, mlflow.base_url, check_s=settings.mlflow_check_s) if mlflow.enabled else None
    registry = make_registry(database)
    context = Context(settings, database, blobs, changes, registry, identity=identity)
    refusals = Refusals(database, registry)
    guardian = Guardian(context)
    services = (Notifier(context, home, mlflow=mlflow), Scheduler(context), guardian, Guardrails(context))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        changes.attach(asyncio.get_running_loop())
        if projector is not None:
            projector.start()
        for service in services:
            service.start()
        yield
        for service in reversed(services):
            await asyncio.to_thread(service.stop)
        if projector is not None:
            await asyncio.to_thread(projector.stop)
        database.close()

    app = FastAPI(
        title="roblox-ml control plane",
        version="1",
        summary="Versions, aliases and endpoints of models; what doors and agents must know.",
        lifespan=lifespan,
        responses=_ERRORS,
        dependencies=[Depends(enforce)],
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.context = context
    app.state.authenticator = Authenticator(home.ensure_token(), database, identity)
    app.state.refusals = refusals
    app.state.projector = projector
    app.state.guardian = guardian
    for module in (
        store,
        models,
        endpoints,
        rollouts,
        guarding,
        upkeep,
        identity_routes,
        scheduling_routes,
        notifying_routes,
    ):
        app.include_router(module.router)
    app.add_exception_handler(RmlError, _on_rml_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)
    app.add_middleware(
        Guard,
        authenticator=app.state.authenticator,
        refusals=refusals,
        max_body=settings.max_body_bytes,
        max_blob=settings.max_blob_bytes,
        registry=registry,
    )
    return app


async def _on_rml_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RmlError)
    if isinstance(error, Forbidden):
        principal, record = request.scope.get("rml.principal"), request.app.state.refusals.record
        await asyncio.to_thread(record, error, request.method, request.url.path, principal=principal)
    return JSONResponse(error.to_json(), error.status)


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    """Every finding of the request's validation in one message: which field, what is wrong with it."""
    assert isinstance(error, RequestValidationError)
    for item in error.errors():
        if tuple(item["loc"]) == ("path", "name"):
            try:
                check_name(str(item["input"]), "name")
            except RmlError as better:  # it knows a name that would do
                return JSONResponse(better.to_json(), better.status)
    found = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
    message = "; ".join(text.encode("utf-8", "replace").decode() for text in found[:20])
    body = {"error": {"code": "invalid", "message": message[:4000], "hint": "the shapes are listed at /docs"}}
    return JSONResponse(body, 422)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        failure: RmlError = NotFound(f"there is no {request.method} {request.url.path}"[:500], hint="routes: /docs")
        return JSONResponse(failure.to_json(), 404)
    failure = from_json(
        error.status_code, {"error": {"code": "", "message": str(error.detail), "hint": "routes: /docs"}}
    )
    return JSONResponse(failure.to_json(), error.status_code, headers=error.headers)


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    _LOG.error("request failed", exc_info=error, extra={"rml_fields": {"path": request.url.path}})
    failure = RmlError(
        "the control plane failed on this request", hint="the cause is in its log: `rml logs control-plane`"
    )
    return JSONResponse(failure.to_json(), 500)
