"""Build the step image without a daemon and without a registry: Debian packages, PyPI, buildah. Run as root.

    python scripts/build_step_image.py --output step-image.tar            Debian's own Python as the base
    python scripts/build_step_image.py --base python:3.11-slim --output … a base image that buildah can pull

The result is a docker archive (`docker load`, `podman load`, `ctr images import`, `testcluster load`). The base is a
minimal Debian root file system made by mmdebstrap; then `deploy/images/step/Containerfile` is built on it, the very file
that any other tool builds on a Python image. Time stamps are those of SOURCE_DATE_EPOCH (default: a fixed date), so the
same packages give the same layers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTEXT = ROOT / "deploy" / "images" / "step"
# libstdc++ and libgomp: what compiled wheels (numpy, torch) expect of a machine and do not carry themselves.
PACKAGES = "python3,python3-venv,ca-certificates,libstdc++6,libgomp1,netbase,tzdata"
# What no step reads; a container is not administered from inside.
LEFT_OUT = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/cache/debconf",
    "var/log",
    "var/lib/apt",
)
TOOLS = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
EPOCH = "1767225600"  # 2026-01-01


def main() -> None:
    """Read the arguments, build, say what came out."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--output", type=Path, default=ROOT / ".build" / "step-image.tar", help="the archive to write")
    asked.add_argument("--tag", default="localhost/rml-step:1", help="the image's name (default: %(default)s)")
    asked.add_argument("--base", help="an image to build on, instead of one made from Debian packages")
    asked.add_argument(
        "--suite", default="bookworm", help="the Debian release with the wanted Python (default: %(default)s)"
    )
    asked.add_argument("--mirror", default="http://deb.debian.org/debian", help="Debian mirror (default: %(default)s)")
    given = asked.parse_args()
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if missing or os.geteuid() != 0:
        sys.exit(
            f"this needs root and {', '.join(TOOLS)}: apt-get install -y --no-install-recommends {' '.join(TOOLS.values())}"
        )
    os.environ.setdefault("SOURCE_DATE_EPOCH", EPOCH)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rml-image-") as scratch:
        build(Path(scratch), given.output.resolve(), given.tag, given.base, given.suite, given.mirror)
    size = given.output.stat().st_size
    print(f"{given.tag}: {given.output} ({size / 1e6:.0f} MB unpacked) after {time.monotonic() - started:.0f} s")


def build(scratch: Path, output: Path, tag: str, base: str | None, suite: str, mirror: str) -> None:
    """The archive of the step image at `output`; images lie in a store of their own below `scratch`."""
    if base is None:
        base = "localhost/rml-step-base:1"
        debian(scratch, base, suite, mirror)
    options = ["--isolation=chroot", f"--timestamp={os.environ['SOURCE_DATE_EPOCH']}", f"--build-arg=BASE={base}"]
    # The build asks the places this machine asks. What is mounted or set here is not in the image.
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.is_file():
        options += [f"--volume={certificates}:/build/ca.crt:ro", "--build-arg=PIP_CERT=/build/ca.crt"]
    if index := os.environ.get("PIP_INDEX_URL"):
        options += [f"--build-arg=PIP_INDEX_URL={index}"]
    buildah(scratch, "bud", *options, "--tag", tag, str(CONTEXT))
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        buildah(scratch, "push", tag, f"docker-archive:{fresh}:{tag}")
        fresh.replace(output)
    finally:
        fresh.unlink(missing_ok=True)


def debian(scratch: Path, name: str, suite: str, mirror: str) -> None:
    """A base image: Debian's essential packages and Python, nothing of apt."""
    rootfs = scratch / "rootfs.tar"
    prune = " ".join(f'"$1"/{path}/*' for path in LEFT_OUT)
    print(f"Debian {suite} with {PACKAGES}", flush=True)
    call(
        "mmdebstrap",
        "--quiet",
        "--variant=essential",
        f"--include={PACKAGES}",
        f"--customize-hook=rm -rf {prune}",
        suite,
        str(rootfs),
        mirror,
    )
    context = scratch / "base"
    context.mkdir()
    (context / "Containerfile").write_text("FROM scratch\nADD rootfs.tar /\n")
    rootfs.rename(context / "rootfs.tar")
    stamp = f"--timestamp={os.environ['SOURCE_DATE_EPOCH']}"
    buildah(
        scratch, "bud", "--isolation=chroot", stamp, "--tag", name, "-f", str(context / "Containerfile"), str(context)
    )


def buildah(scratch: Path, command: str, *arguments: str) -> None:
    """buildah with a store of its own: nothing of this machine's images is read or changed."""
    store = [f"--root={scratch}/images", f"--runroot={scratch}/run", "--storage-driver=vfs"]
    call("buildah", *store, command, "--quiet", *arguments)


def call(*command: str) -> None:
    """Run a program; its words are shown when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed ({done.returncode}): {' '.join(command)}\n{done.stdout[-4000:]}")


if __name__ == "__main__":
    main()
