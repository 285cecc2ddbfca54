"""Make `.peers`: the servers of other projects that benchmarks compare with. Nothing of ours runs in them.

    .peers/main/       BentoML, Ray Serve, infinity, torch and transformers (also the interpreter of Triton's plain backend)
    .peers/mlserver/   MLServer's Hugging Face runtime, whose pins exclude the others'
    .peers/router/     KServe's SDK, Starlette with httpx, Envoy: what `make bench-router` compares with
    .peers/nginx/      Debian's nginx, unpacked and not installed, where none is on the PATH

    python scripts/setup_peers.py [main mlserver router]      all of them, or those that are named

Some gigabytes (`router`: 400 MB), so `make setup` leaves them out. `RML_PEERS_DIR` names another folder. A marker keyed by the
lock makes a second call a matter of milliseconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {"main": "peers.txt", "mlserver": "peers-mlserver.txt", "router": "peers-router.txt"}
# What must import before a marker is written: a server that fails later would look like a slow one.
CHECKS = {
    "main": "import bentoml, infinity_emb, numpy, openvino, ray.serve, tokenizers, torch, transformers; "
    "assert numpy.__version__[0] == '1', numpy.__version__",
    # Its Hugging Face runtime is only looked for: importing it needs the help that the benchmark's app.py gives.
    "mlserver": "import importlib.util, mlserver, openvino, torch, transformers; "
    "assert importlib.util.find_spec('mlserver_huggingface')",
    "router": "import envoy, httpx, kserve, starlette, uvicorn",
}
LAYOUT = "1"  # part of the marker: raise it when this script changes what it leaves behind

sys.path.insert(0, str(ROOT))

from roblox_ml._runtime.indexes import TORCH_CPU_INDEX, find_uv, index_flags, uv_environment  # noqa: E402


def main() -> None:
    """Make every environment that is asked for complete, or do nothing where its marker says that it is."""
    wanted = sys.argv[1:] or list(LOCKS)
    if unknown := sorted(set(wanted) - set(LOCKS)):
        sys.exit(f"setup: no environment is called {', '.join(unknown)}; there are {', '.join(LOCKS)}")
    target = Path(os.environ.get("RML_PEERS_DIR") or ROOT / ".peers").expanduser().resolve()
    target.mkdir(parents=True, exist_ok=True)
    with (target / ".rml-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in wanted:
            make(target / name, ROOT / "requirements" / LOCKS[name], CHECKS[name])
        if "router" in wanted:
            unpack_nginx(target / "nginx")


def make(environment: Path, lock: Path, check: str) -> None:
    """One environment, exactly its lock."""
    wanted = hashlib.sha256(LAYOUT.encode() + b"\0" + lock.read_bytes()).hexdigest()
    marker = environment / ".rml-complete"
    if marker.is_file() and marker.read_text() == wanted:
        return
    started = time.monotonic()
    say(f"installing {environment.parent.name}/{environment.name} from requirements/{lock.name} (hash-checked)")
    marker.unlink(missing_ok=True)
    uv = find_uv()
    if uv is None:
        sys.exit("setup: uv is missing; `make setup` installs it into .venv first")
    python = environment / "bin" / "python"
    if not python.exists():
        run([uv, "venv", "--quiet", "--python", sys.executable, str(environment)])
    sync = [uv, "pip", "sync", "--quiet", "--python", str(python), "--require-hashes", *index_flags()]
    first = subprocess.run([*sync, str(lock)], env=uv_environment(), capture_output=True, text=True, check=False)
    if first.returncode != 0:
        if "torch" not in first.stderr:
            sys.exit(f"setup: uv could not install requirements/{lock.name}:\n{first.stderr}")
        say(f"no CPU build of torch in pip's find-links; taking it from {TORCH_CPU_INDEX}")
        run([*sync, "--index", TORCH_CPU_INDEX, str(lock)])
    quiet = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "BENTOML_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    asked = subprocess.run([str(python), "-c", check], env=quiet, capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        sys.exit(f"setup: the environment {environment.name} is broken:\n{asked.stdout}{asked.stderr}")
    marker.write_text(wanted)
    say(f"{environment.parent.name}/{environment.name} is ready ({time.monotonic() - started:.0f} s)")


def unpack_nginx(target: Path) -> None:
    """Debian's nginx, not installed: its package would start a server. Without apt the benchmark does without."""
    binary = target / "usr" / "sbin" / "nginx"
    if shutil.which("nginx") or binary.is_file() or not (shutil.which("apt-get") and shutil.which("dpkg")):
        return
    with tempfile.TemporaryDirectory(prefix="rml-nginx-") as folder:
        fetched = subprocess.run(
            ["apt-get", "download", "nginx"], cwd=folder, capture_output=True, text=True, check=False
        )
        packages = list(Path(folder).glob("nginx_*.deb"))
        if not packages:
            say(f"no nginx to compare with: {fetched.stderr.strip()[-200:]}")
            return
        run(["dpkg", "-x", str(packages[0]), str(target)])
    say(f"{target.parent.name}/{target.name} is ready")


def run(command: list[str]) -> None:
    """Run a command with pip's index settings; stop with its words when it fails."""
    done = subprocess.run(command, env=uv_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"setup: {' '.join(command[:4])} … failed:\n{done.stdout}{done.stderr}")


def say(text: str) -> None:
    """One line of progress."""
    print(f"setup: {text}", flush=True)


if __name__ == "__main__":
    main()
