"""The door as a process: two listening sockets, one event loop, a graceful end.

Sockets are bound before anything else is started, so that a taken port is one clear sentence instead of a half-started
server.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable

import grpc
from roblox_ml_core.http.server import Limits, Server
from roblox_ml_core.settings import ControlPlaneSettings, DoorSettings, HomeSettings
from roblox_ml_core.storage import BlobStore
from roblox_ml_core.telemetry import log

from ..preprocess import Prepared
from ..preprocess.files import Files
from .authentication import Authentication
from .follower import Follower
from .grpc_door import GrpcDoor
from .keeping import keeper
from .keys import KeyFeed
from .reporting import Reporter, door_name
from .rest import RestDoor
from .service import Door
from .signed import SignedTokens
from .tracing import tracing_of

__all__ = ["PortTaken", "run", "serve"]

_DRAIN_S = 10.0
logger = logging.getLogger(__name__)


class PortTaken(OSError):
    """A port the door needs is in use."""


async def serve(
    settings: DoorSettings,
    control: ControlPlaneSettings,
    home: HomeSettings,
    *,
    stop: asyncio.Event,
    announce: Callable[[int, int], None] | None = None,
) -> None:
    """Serve until `stop` is set. `announce(rest_port, grpc_port)` is called once both listen (port 0: any free one)."""
    listening = _bind(settings.host, settings.port, "RML_DOOR_PORT")
    door = Door(settings)
    grpc_server = grpc.aio.server(
        options=(
            ("grpc.so_reuseport", 0),  # else two doors would share a port in silence
            ("grpc.max_receive_message_length", settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
        )
    )
    grpc_server.add_generic_rpc_handlers((GrpcDoor(door),))
    try:
        grpc_port = grpc_server.add_insecure_port(f"{settings.host}:{settings.grpc_port}")
    except RuntimeError as error:
        listening.close()
        raise PortTaken(_taken(settings.host, settings.grpc_port, "RML_DOOR_GRPC_PORT")) from error
    files = Files(home.root / "serving" / "preprocess", BlobStore(home.store_url, token=home.read_token()))
    prepared = door.prepared = Prepared(door, files)
    door.recorder = keeper(door, home, int(listening.getsockname()[1]))
    follower = Follower(door, control=control, home=home, prepared=prepared)
    follower.start_from_disk()
    following = asyncio.create_task(follower.run())
    loopback = ipaddress.ip_address(listening.getsockname()[0]).is_loopback
    door.auth = Authentication(home.read_token(), anonymous=loopback and not settings.require_token)
    door.tracing = tracing_of()
    keys = KeyFeed(door.auth, control=control, home=home)
    door.auth.signed = SignedTokens(keys.introspect, door.metrics.turned_away.inc)
    keys.start_from_disk()
    following_keys = asyncio.create_task(keys.run())
    reporter = Reporter(door.metrics, door_name(int(listening.getsockname()[1])), control, home)
    reporting = asyncio.create_task(reporter.run())
    web = Server(RestDoor(door), Limits(body_bytes=settings.max_body_bytes, body_s=settings.deadline_s))
    await grpc_server.start()
    await web.start(listening)
    rest_port = int(listening.getsockname()[1])
    log(logger, logging.INFO, "listening", rest=f"{settings.host}:{rest_port}", grpc=f"{settings.host}:{grpc_port}")
    if announce is not None:
        announce(rest_port, grpc_port)
    stopping = asyncio.create_task(stop.wait())
    ended, _ = await asyncio.wait({stopping, following}, return_when=asyncio.FIRST_COMPLETED)
    following.cancel()
    following_keys.cancel()
    reporting.cancel()
    stopping.cancel()
    await asyncio.gather(grpc_server.stop(_DRAIN_S), web.stop(_DRAIN_S), return_exceptions=True)
    await asyncio.gather(following, following_keys, reporting, stopping, return_exceptions=True)
    await door.recorder.close()
    if door.tracing is not None:
        await asyncio.to_thread(door.tracing.close)
    await asyncio.gather(follower.close(), keys.close(), reporter.close(), prepared.close(), door.fleet.close())
    for task in ended:
        task.result()  # a follower or server that ended by itself did so with an error: let it be seen


async def run() -> None:
    """Serve with the settings of the environment until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    settings = DoorSettings()

    def announce(rest_port: int, grpc_port: int) -> None:
        # What is loaded by now stays: looking through it again and again would hold up requests for tens of milliseconds.
        gc.collect()
        gc.freeze()
        print(f"door: REST http://{settings.host}:{rest_port}  gRPC {settings.host}:{grpc_port}", flush=True)

    await serve(settings, ControlPlaneSettings(), HomeSettings(), stop=stop, announce=announce)


def _bind(host: str, port: int, variable: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise PortTaken(_taken(host, port, variable)) from error
    return listening


def _taken(host: str, port: int, variable: str) -> str:
    return f"{host}:{port} cannot be used, most likely another process listens there; stop it or set {variable} to another port"
