"""Where packages come from: pip's configuration, said in uv's words.

A company sets its mirror once, in pip's configuration; both the lock (made in the notebook) and the environment (built
in the step) must ask the same places. uv does not read pip's files, so they are read here, in pip's order of
precedence. A private index has a name; its address, credentials and all, is looked up under that name where it is needed.
Nothing read here is ever written into a lock, nor put on a command line, which every user of a machine can read.
Standard library only.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import sys
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

__all__ = [
    "TORCH_CPU_INDEX",
    "PipSettings",
    "bare",
    "find_uv",
    "index_flags",
    "named_credentials",
    "named_url",
    "pip_settings",
    "redact",
    "uv_environment",
    "variable_of",
]

# The one public index that may be named: PyPI's torch for Linux is the CUDA build, gigabytes nobody asked for.
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True, slots=True)
class PipSettings:
    """The settings of pip that say where packages come from."""

    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    trusted_hosts: tuple[str, ...] = ()
    cert: str = ""
    timeout: str = ""


def pip_settings() -> PipSettings:
    """pip's configuration files (site, user, environment's own, `PIP_CONFIG_FILE`), then `PIP_*`; the later wins."""
    values: dict[str, str] = {}
    for file in _config_files():
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue  # pip itself would stop here with its own message; an unreadable file sets nothing
        for section in ("global", "install"):
            if parser.has_section(section):
                values |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    for name, value in os.environ.items():
        if name.startswith("PIP_") and value:
            values[name[4:].lower().replace("_", "-")] = value
    settings = PipSettings(
        index_url=values.get("index-url", "").strip(),
        extra_index_urls=tuple(values.get("extra-index-url", "").split()),
        find_links=tuple(str(_expanded(link)) for link in values.get("find-links", "").split()),
        no_index=values.get("no-index", "").strip().lower() in ("1", "true", "yes", "on"),
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
        cert=values.get("cert", "").strip(),
        timeout=(values.get("timeout") or values.get("default-timeout") or "").strip(),
    )
    # What is set for uv itself was set on purpose, and wins.
    if os.environ.get("UV_INDEX_URL") or os.environ.get("UV_DEFAULT_INDEX"):
        settings = replace(settings, index_url="")
    return settings


def index_flags(settings: PipSettings | None = None) -> list[str]:
    """Flags that go with `uv_environment`, which has the addresses: those may hold passwords, and flags are public."""
    chosen = pip_settings() if settings is None else settings
    flags: list[str] = []
    for link in chosen.find_links:
        flags += ["--find-links", link]
    for host in chosen.trusted_hosts:
        flags += ["--allow-insecure-host", host]
    return [*flags, "--no-index"] if chosen.no_index else flags


def uv_environment(settings: PipSettings | None = None) -> dict[str, str]:
    """This process's environment with pip's indexes, time-out and certificates said to uv; what is set for uv stays.

    All indexes count alike, as for pip.
    """
    chosen = pip_settings() if settings is None else settings
    environment = dict(os.environ)
    if chosen.index_url and not chosen.no_index:
        environment.setdefault("UV_DEFAULT_INDEX", chosen.index_url)
    if chosen.extra_index_urls and not chosen.no_index:
        extra = [*environment.get("UV_EXTRA_INDEX_URL", "").split(), *chosen.extra_index_urls]
        environment["UV_EXTRA_INDEX_URL"] = " ".join(dict.fromkeys(extra))
    # uv stops at the first index that knows a name; pip takes the best version of all. In the environment rather than
    # in the flags, so that a caller can add indexes without saying it twice.
    environment.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    environment.setdefault("UV_HTTP_TIMEOUT", chosen.timeout or "60")
    environment.setdefault("UV_NO_PROGRESS", "1")
    # uv reads `uv.toml` and `[tool.uv]` of the folder it runs in: a notebook's folder must not change a lock.
    environment.setdefault("UV_NO_CONFIG", "1")
    if chosen.cert:
        environment.setdefault("SSL_CERT_FILE", chosen.cert)
    return environment


def variable_of(name: str) -> str:
    """The environment variable that holds a named index's address unless another was declared: `RML_INDEX_TEAM_URL`."""
    return f"RML_INDEX_{_upper(name)}_URL"


def named_url(name: str, variable: str = "") -> str | None:
    """The address of the index `name`: from the environment, else from `$RML_HOME/indexes.json`; None when neither knows.

    The file is `{"team": "https://…"}`; an address there has no password (uv, pip and netrc have places for those).
    """
    for key in dict.fromkeys((variable or variable_of(name), variable_of(name))):
        if value := os.environ.get(key, "").strip():
            return value
    from .._store import home

    try:
        kept = json.loads((home() / "indexes.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    found = kept.get(name) if isinstance(kept, dict) else None
    return found if isinstance(found, str) else None


def bare(url: str) -> str:
    """The address without user and password."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def named_credentials(urls: Mapping[str, str]) -> dict[str, str]:
    """The user and password of each named address, as the variables that uv reads for an index of this name."""
    found: dict[str, str] = {}
    for name, url in urls.items():
        parts = urllib.parse.urlsplit(url)
        if parts.username:
            found[f"UV_INDEX_{_upper(name)}_USERNAME"] = urllib.parse.unquote(parts.username)
            found[f"UV_INDEX_{_upper(name)}_PASSWORD"] = urllib.parse.unquote(parts.password or "")
    return found


def _upper(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def find_uv() -> str | None:
    """uv beside this interpreter, on PATH, or inside the `uv` distribution; None when there is none."""
    # The environments built here are never the kernel's own, so a uv of any origin will do.
    for folder in (Path(sys.executable).parent, Path(sys.prefix) / "bin"):
        candidate = folder / ("uv.exe" if os.name == "nt" else "uv")
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    found = shutil.which("uv")
    if found:
        return found
    if find_spec("uv") is None:
        return None
    try:
        return str(import_module("uv").find_uv_bin())
    except (FileNotFoundError, AttributeError):
        return None


def redact(text: str) -> str:
    """The text without the passwords of URLs, fit for an error message."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1***@", text)


def _config_files() -> list[Path]:
    """pip's files, weakest first; `PIP_CONFIG_FILE=/dev/null` switches all off, as pip has it."""
    own = os.environ.get("PIP_CONFIG_FILE", "")
    if own == os.devnull:
        return []
    user = Path.home()
    if sys.platform == "darwin":
        shared, private = (
            [Path("/Library/Application Support/pip/pip.conf")],
            user / "Library/Application Support/pip/pip.conf",
        )
        if not private.parent.is_dir():
            private = user / ".config/pip/pip.conf"
    else:
        folders = os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
        shared = [Path(folder) / "pip/pip.conf" for folder in reversed(folders.split(os.pathsep)) if folder]
        shared.append(Path("/etc/pip.conf"))
        private = Path(os.environ.get("XDG_CONFIG_HOME") or user / ".config") / "pip/pip.conf"
    files = [*shared, user / ".pip/pip.conf", private, Path(sys.prefix) / "pip.conf"]
    return [*files, Path(own)] if own else files


def _expanded(link: str) -> str:
    return link if "://" in link else str(Path(link).expanduser())
