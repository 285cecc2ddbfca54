"""Put a real Triton Inference Server, and the interpreter its Python backend uses, into one folder. No container.

    .triton/server/   the pinned nvidia-pytriton wheel, unpacked (never installed: its own pins would bind ours)
    .triton/be/       the virtual environment the backend's stub sees (numpy 1, ONNX Runtime, tokenizers, skops)

`RML_TRITON_DIR` names another folder. A marker keyed by both locks makes a second call a matter of milliseconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SERVER_LOCK = ROOT / "requirements" / "triton-server.txt"
BACKEND_LOCK = ROOT / "requirements" / "triton.txt"
LIBPYTHON = "libpython3.11.so.1.0"
# What a CPU server needs of the wheel; the rest (pytriton's own Python code, clients) is not ours to run.
KEEP = ("pytriton/tritonserver", "nvidia_pytriton.libs")
STUB = "3.11"
LAYOUT = "1"  # part of the marker: raise it when this script changes what it leaves behind

sys.path.insert(0, str(ROOT))

from roblox_ml._runtime.indexes import index_flags, uv_environment  # noqa: E402


def main() -> None:
    """Make the folder complete, or do nothing when its marker says that it is."""
    target = Path(os.environ.get("RML_TRITON_DIR") or ROOT / ".triton").expanduser().resolve()
    target.mkdir(parents=True, exist_ok=True)
    wanted = digest_of([SERVER_LOCK, BACKEND_LOCK])
    marker = target / ".rml-complete"
    # Two `make` at once (tests and demo, say) must not fill one folder together.
    with (target / ".rml-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if marker.is_file() and marker.read_text() == wanted:
            return
        marker.unlink(missing_ok=True)
        started = time.monotonic()
        ensure_libpython()
        install_server(target)
        install_backend(target)
        check(target)
        marker.write_text(wanted)
    say(f"Triton is ready in {shown(target)} ({time.monotonic() - started:.0f} s)")


def install_server(target: Path) -> None:
    """Unpack the wheel by hash and keep the server, its libraries and the stub of our Python."""
    say("unpacking tritonserver from the nvidia-pytriton wheel (some hundred MB, hash-checked)")
    fresh, server = target / "server.new", target / "server"
    shutil.rmtree(fresh, ignore_errors=True)
    uv(
        "pip",
        "install",
        "--target",
        str(fresh),
        "--no-deps",
        "--require-hashes",
        "-r",
        str(SERVER_LOCK),
        what="the Triton wheel",
    )
    keep_only(fresh, KEEP)
    triton = fresh / "pytriton" / "tritonserver"
    stub = triton / "python_backend_stubs" / STUB / "triton_python_backend_stub"
    # Triton looks for the stub here; the wheel leaves the place empty.
    placed = triton / "backends" / "python" / stub.name
    shutil.copy2(stub, placed)
    shutil.rmtree(triton / "python_backend_stubs")
    for path in (triton / "bin" / "tritonserver", placed):
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    shutil.rmtree(server, ignore_errors=True)
    fresh.rename(server)


def install_backend(target: Path) -> None:
    """The environment of Triton's Python backend, exactly its lock."""
    say("installing the Python backend's environment from requirements/triton.txt (hash-checked)")
    backend = target / "be"
    if not (backend / "bin" / "python").exists():
        uv(
            "venv",
            "--quiet",
            "--python",
            sys.executable,
            str(backend),
            what="the backend's virtual environment",
            index=False,
        )
    uv(
        "pip",
        "sync",
        "--python",
        str(backend / "bin" / "python"),
        "--require-hashes",
        str(BACKEND_LOCK),
        what="the backend's lock",
    )


def ensure_libpython() -> None:
    """The stub links the system's libpython, not the one of a virtual environment."""
    if loadable(LIBPYTHON):
        return
    fix = "apt-get install -y libpython3.11"
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"{LIBPYTHON} is missing, Triton's Python backend links it: {fix}")
        subprocess.run(["apt-get", "update", "-qq"], check=False, stdout=subprocess.DEVNULL)
        subprocess.run(
            fix.split(), check=False, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, stdout=subprocess.DEVNULL
        )
    if not loadable(LIBPYTHON):
        sys.exit(
            f"setup: Triton's Python backend links {LIBPYTHON}, which this machine's loader does not find.\n"
            f"Install it, then call `make setup` again. On Debian or Ubuntu: sudo {fix}"
        )


def check(target: Path) -> None:
    """Ask the server for its options and the backend for numpy: a broken folder must not get a marker."""
    server = target / "server" / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    helped = subprocess.run([str(server), "--help"], capture_output=True, text=True, check=False)
    if "--model-control-mode" not in helped.stdout + helped.stderr:
        sys.exit(f"setup: tritonserver does not start on this machine:\n{helped.stdout}{helped.stderr}")
    code = "import numpy, onnxruntime, tokenizers, skops.io; print(numpy.__version__)"
    asked = subprocess.run(
        [str(target / "be" / "bin" / "python"), "-c", code], capture_output=True, text=True, check=False
    )
    if asked.returncode != 0 or not asked.stdout.startswith("1."):
        sys.exit(
            f"setup: the Python backend's environment is broken (numpy 1 is needed):\n{asked.stdout}{asked.stderr}"
        )


def keep_only(folder: Path, keep: tuple[str, ...]) -> None:
    """Delete everything under a folder that is not inside one of the kept paths."""
    kept = [folder / name for name in keep]
    missing = [str(path.relative_to(folder)) for path in kept if not path.is_dir()]
    if missing:
        sys.exit(f"setup: the Triton wheel has no {', '.join(missing)}; its layout changed, this script must follow it")
    for path in sorted(folder.rglob("*"), reverse=True):
        inside = any(path == top or top in path.parents for top in kept)
        holds = any(path in top.parents for top in kept)
        if not inside and not holds:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def uv(*arguments: str, what: str, index: bool = True) -> None:
    """Run the uv of `.venv` with pip's index settings; stop with its words when it fails."""
    beside = Path(sys.executable).with_name("uv")
    program = str(beside) if beside.exists() else shutil.which("uv")
    if program is None:
        sys.exit("setup: uv is missing; `make setup` installs it into .venv first")
    command = [program, *arguments]
    if index:
        command += ["--quiet", "--only-binary", ":all:", *index_flags()]
    done = subprocess.run(command, env=uv_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"setup: uv could not install {what}:\n{done.stderr}")


def loadable(library: str) -> bool:
    """Does the dynamic loader find it? Asked in a child: loading libpython into ourselves would mix two of them."""
    code = f"import ctypes; ctypes.CDLL({library!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def digest_of(paths: list[Path]) -> str:
    """One digest over what decides the folder's content."""
    return hashlib.sha256(b"\0".join([LAYOUT.encode(), *(path.read_bytes() for path in paths)])).hexdigest()


def shown(path: Path) -> str:
    """A path as a person would name it from the repository."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def say(text: str) -> None:
    """One line of progress."""
    print(f"setup: {text}", flush=True)


if __name__ == "__main__":
    main()
