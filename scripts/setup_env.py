"""Make `.venv` equal the hash-pinned locks, on a machine that has nothing but Python 3.11 and a package index.

Standard library only, because it runs before anything is installed. uv is bootstrapped by pip (pinned by hash), then
does the rest in seconds. The environment is left alone when it already matches the locks.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCKS = [ROOT / "requirements" / "platform.txt", ROOT / "requirements" / "dev.txt"]
MARKER = VENV / ".rml-locks"

sys.path.insert(0, str(ROOT))

from roblox_ml._runtime.indexes import TORCH_CPU_INDEX, index_flags, uv_environment  # noqa: E402


def main() -> None:
    """Create, fill and check the environment; say what happens and how long it took."""
    if sys.version_info[:2] != (3, 11):
        sys.exit(
            f"setup: Python 3.11 is needed, this is {sys.version.split()[0]}. Say which one to use: make PYTHON=/path/to/python3.11"
        )
    wanted = digest_of([*LOCKS, ROOT / "pyproject.toml"])
    if MARKER.is_file() and MARKER.read_text() == wanted and PYTHON.exists():
        return
    started = time.monotonic()
    if not PYTHON.exists():
        say("creating .venv")
        run(
            [sys.executable, "-m", "venv", str(VENV)],
            "Debian keeps venv in a package of its own: apt-get install python3.11-venv",
        )
    uv = bootstrap_uv()
    say("installing the platform environment from requirements/platform.txt and dev.txt (hash-checked)")
    install(uv)
    say("installing roblox-ml itself, editable")
    run(
        [
            str(uv),
            "pip",
            "install",
            "--quiet",
            "--python",
            str(PYTHON),
            "--no-deps",
            "--no-build-isolation",
            "--editable",
            str(ROOT),
        ]
    )
    MARKER.write_text(wanted)
    say(f".venv is ready ({time.monotonic() - started:.0f} s)")


def bootstrap_uv() -> Path:
    """The uv of the lock, installed by pip with its hash."""
    uv = VENV / "bin" / "uv"
    pin = re.search(r"^uv==.*?(?=^\S)", LOCKS[0].read_text() + "\nend", re.MULTILINE | re.DOTALL)
    assert pin, "requirements/platform.txt pins no uv"
    wanted = pin.group(0).split()[0].split("==")[1]
    if (
        uv.exists()
        and wanted in subprocess.run([str(uv), "--version"], capture_output=True, text=True, check=False).stdout
    ):
        return uv
    say(f"installing uv {wanted}")
    lock = VENV / "uv.txt"
    lock.write_text(pin.group(0))
    run([str(PYTHON), "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:", "-r", str(lock)])
    return uv


def install(uv: Path) -> None:
    """`uv pip sync`; the CPU build of torch from pip's find-links folder, else from PyTorch's own CPU index."""
    command = [str(uv), "pip", "sync", "--quiet", "--python", str(PYTHON), "--require-hashes", *index_flags()]
    command += [str(lock) for lock in LOCKS]
    environment = uv_environment()
    first = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if first.returncode == 0:
        return
    if "torch" not in first.stderr:
        sys.exit(f"setup: uv could not install the locks:\n{first.stderr}")
    say(f"no CPU build of torch in pip's find-links; taking it from {TORCH_CPU_INDEX}")
    command[4:4] = ["--index", TORCH_CPU_INDEX]
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if second.returncode != 0:
        sys.exit(
            f"setup: the CPU build of torch pinned in requirements/platform.txt was found neither in pip's find-links nor at "
            f"{TORCH_CPU_INDEX}.\nDownload that wheel into a folder and set PIP_FIND_LINKS=that-folder.\n{second.stderr}"
        )


def digest_of(paths: list[Path]) -> str:
    """One digest over the files that decide what `.venv` holds."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


def run(command: list[str], hint: str = "") -> None:
    """Run a command; stop with its output (and a hint) when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"setup: {' '.join(command[:4])} … failed:\n{done.stdout}{done.stderr}\n{hint}")


def say(text: str) -> None:
    """One line of progress."""
    print(f"setup: {text}", flush=True)


if __name__ == "__main__":
    main()
