"""Guards of the floor plan: who may import whom, what runs where, what `import roblox_ml` may load.

Every rule is a function over a tree, so that each can be shown to go red on a tree that breaks it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = ("platform", "pipelines", "serving", "feature_store", "gateway")
PACKAGES = {
    "roblox_ml": "roblox_ml",
    "roblox_ml_core": "platform/roblox_ml_core",
    "roblox_ml_platform": "platform/roblox_ml_platform",
    "roblox_ml_pipelines": "pipelines/roblox_ml_pipelines",
    "roblox_ml_serving": "serving/roblox_ml_serving",
    "roblox_ml_features": "feature_store/roblox_ml_features",
    "roblox_ml_gateway": "gateway/roblox_ml_gateway",
}
MAY_IMPORT = {
    "roblox_ml": {"roblox_ml_core"},
    "roblox_ml_core": set(),
    "roblox_ml_platform": {"roblox_ml_core"},
    "roblox_ml_pipelines": {"roblox_ml_core"},
    "roblox_ml_serving": {"roblox_ml_core"},
    "roblox_ml_features": {"roblox_ml_core"},
    "roblox_ml_gateway": {"roblox_ml_core"},
}
NETWORK = {"socket", "urllib", "http", "httpx", "requests", "aiohttp", "ssl", "ftplib", "smtplib"}
# What a step may meet: these run from the SDK zip in an environment with nothing installed.
IN_STEP = (
    "_runtime", "_graph", "_capture", "_artifacts.py", "errors.py", "_store.py", "_store_remote.py", "_s3.py", "_s3_errors.py",
    "notify.py", "__init__.py",
)  # fmt: skip
HEAVY = {"kfp", "kubernetes", "torch", "transformers", "mlflow", "pandas", "numpy", "yaml", "rich", "pydantic", "httpx", "typer", "fsspec",
         "IPython", "google", "grpc", "roblox_ml_core"}  # fmt: skip


def imports_of(path: Path, *, top_level: bool = False) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted module) for every import in a file; `top_level` leaves out those inside functions."""
    tree = ast.parse(path.read_text())
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module
        if top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if top_level and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
            continue
        pending.extend(ast.iter_child_nodes(node))


def files(folder: Path) -> list[Path]:
    return [folder] if folder.is_file() else sorted(folder.rglob("*.py"))


def container_packages(root: Path) -> list[str]:
    return [f"{name}/__init__.py" for name in CONTAINERS if (root / name / "__init__.py").exists()]


def forbidden_siblings(root: Path) -> list[str]:
    found = []
    for package, folder in PACKAGES.items():
        for path in files(root / folder):
            for line, module in imports_of(path):
                top = module.split(".")[0]
                if top in PACKAGES and top != package and top not in MAY_IMPORT[package]:
                    if package == "roblox_ml" and path.name == "_siblings.py":
                        continue
                    found.append(f"{path.relative_to(root)}:{line} imports {module}")
    return found


def impure(root: Path) -> list[str]:
    found = []
    for part in ("_capture", "_graph"):
        for path in files(root / "roblox_ml" / part):
            for line, module in imports_of(path):
                top = module.split(".")[0]
                if module == "urllib.parse":  # text handling, no network
                    continue
                if top in NETWORK | {"kfp", "kubernetes", "subprocess"} and not (
                    top == "subprocess" and path.name == "_git.py"
                ):
                    found.append(f"{path.relative_to(root)}:{line} imports {module}")
    return found


def not_standard_library(root: Path) -> list[str]:
    """Third-party imports at import time in what runs inside a step; inside `_runtime` also those in functions."""
    found = []
    for part in IN_STEP:
        for path in files(root / "roblox_ml" / part):
            for line, module in imports_of(path, top_level=part != "_runtime"):
                top = module.split(".")[0]
                if top not in sys.stdlib_module_names and top != "roblox_ml":
                    found.append(f"{path.relative_to(root)}:{line} imports {module}")
    return found


def kfp_outside_its_backend(root: Path) -> list[str]:
    found = []
    for path in files(root / "roblox_ml"):
        if "_backends/kfp" in path.as_posix():
            continue
        found += [f"{path.relative_to(root)}:{line} imports {module}" for line, module in imports_of(path)
                  if module.split(".")[0] in ("kfp", "kubernetes", "kfp_server_api", "kfp_kubernetes")]  # fmt: skip
    return found


RULES = [container_packages, forbidden_siblings, impure, not_standard_library, kfp_outside_its_backend]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule) -> None:
    assert rule(ROOT) == []


BREAKAGES = [
    (container_packages, "platform/__init__.py", ""),
    (forbidden_siblings, "serving/roblox_ml_serving/x.py", "def f():\n    import roblox_ml_platform\n"),
    (forbidden_siblings, "platform/roblox_ml_core/x.py", "from roblox_ml import step\n"),
    (impure, "roblox_ml/_capture/x.py", "def f():\n    import urllib.request\n"),
    (impure, "roblox_ml/_graph/x.py", "import kfp\n"),
    (not_standard_library, "roblox_ml/_runtime/x.py", "def f():\n    import numpy\n"),
    (not_standard_library, "roblox_ml/_artifacts.py", "import pandas\n"),
    (kfp_outside_its_backend, "roblox_ml/_runs.py", "from kfp import dsl\n"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BREAKAGES, ids=lambda value: getattr(value, "__name__", None))
def test_each_rule_goes_red_when_broken(rule, path: str, text: str, tmp_path: Path) -> None:
    for folder in PACKAGES.values():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for part in IN_STEP:
        target = tmp_path / "roblox_ml" / part
        target.touch() if part.endswith(".py") else target.mkdir()
    assert rule(tmp_path) == []
    (tmp_path / path).write_text(text)
    assert len(rule(tmp_path)) == 1


def test_all_equals_the_public_names() -> None:
    import roblox_ml

    assert len(set(roblox_ml.__all__)) == len(roblox_ml.__all__)
    public = {name for name in dir(roblox_ml) if not name.startswith("_")}
    assert public == {name for name in roblox_ml.__all__ if not name.startswith("_")}
    for name in roblox_ml.__all__:
        assert getattr(roblox_ml, name) is not None


def test_importing_the_sdk_loads_nothing_heavy() -> None:
    code = "import roblox_ml, sys; print('\\n'.join(sorted({m.split('.')[0] for m in sys.modules})))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert loaded & HEAVY == set()
    own = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import roblox_ml"], capture_output=True, text=True, check=True
    )
    assert "roblox_ml._backends" not in own.stderr


def test_the_stdlib_module_platform_works_from_the_root() -> None:
    code = "import platform, uuid; print(platform.python_version(), platform.system(), uuid.uuid4())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
