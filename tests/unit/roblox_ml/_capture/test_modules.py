"""Steps in files, and the local modules they bring along; everything runs in a fresh process from the bundle alone."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import textwrap

import pytest

from roblox_ml._capture import build_bundle, capture
from roblox_ml._capture._modules import _folder_installs
from roblox_ml.errors import CaptureError


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Write files under a fresh folder on sys.path; modules of it are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(**files: str):
        for name, text in files.items():
            path = tmp_path / name.replace("__slash__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        return tmp_path

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(
            getattr(sys.modules[name], "__path__", None) or getattr(sys.modules[name], "__file__", "")
        ):
            del sys.modules[name]


def put(root, path, text):
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(textwrap.dedent(text))


def run_elsewhere(slice_, folder):
    """Import the slice from its bundle's files with nothing else on the path, and call the step."""
    import io
    import zipfile

    bundle = build_bundle(slice_, python="3.11", lock="")
    zipfile.ZipFile(io.BytesIO(bundle.data)).extractall(folder)
    module, _, function = slice_.entry.partition(":")
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import {module}, json; print(json.dumps({module}.{function}()))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def load(name):
    return importlib.import_module(name)


def test_a_file_is_sliced_so_that_the_pipeline_does_not_run_again(project, tmp_path):
    root = project()
    put(
        root,
        "flow_a.py",
        """
        import sys
        from pathlib import Path
        RATE = 3
        print("side effect of the pipeline file")
        def helper(): return RATE
        def step(): return helper()
        def other(): return Path(__file__)
        handle = open(__file__)
        if __name__ == "__main__":
            step()
        """,
    )
    slice_ = capture(load("flow_a").step)
    assert b"side effect" not in slice_.files["rml_step.py"]
    assert run_elsewhere(slice_, tmp_path / "out") == 3
    assert slice_.lines[3].where.endswith("flow_a.py:4")


def test_local_modules_travel_whole_and_transitively(project, tmp_path):
    root = project()
    put(root, "helpers_b.py", "import textlib_b.clean as c\ndef f(x): return c.clean(x)\n")
    put(root, "textlib_b/__init__.py", "")
    put(root, "textlib_b/clean.py", "from . import words\ndef clean(x): return words.table()[x]\n")
    put(root, "textlib_b/words.py", "import importlib.resources, json\n"
        "def table(): return json.loads(importlib.resources.files('textlib_b').joinpath('t.json').read_text())\n")  # fmt: skip
    put(root, "textlib_b/plots.py", "import matplotlib_nope\n")
    put(root, "textlib_b/t.json", '{"a": 7}')
    put(
        root,
        "flow_b.py",
        """
        def step():
            import helpers_b  # lazily
            return helpers_b.f("a")
        """,
    )
    slice_ = capture(load("flow_b").step)
    assert slice_.local_modules == ("helpers_b", "textlib_b")
    assert {"textlib_b/plots.py", "textlib_b/t.json", "textlib_b/words.py"} <= set(slice_.files)
    assert slice_.imports == frozenset(), "an unreached module adds nothing to the environment"
    assert run_elsewhere(slice_, tmp_path / "out") == 7


def test_steps_inside_a_package_with_relative_imports(project, tmp_path):
    root = project()
    put(root, "pkg_c/__init__.py", "")
    put(root, "pkg_c/base.py", "VALUE = 4\n")
    put(root, "pkg_c/deep/__init__.py", "")
    put(
        root,
        "pkg_c/deep/steps.py",
        """
        from __future__ import annotations
        from ..base import VALUE
        from . import tools as t
        def step():
            from .tools import (
                twice,
            )
            return twice(VALUE) + t.one()
        def later():
            return 1
        """,
    )
    put(root, "pkg_c/deep/tools.py", "def twice(x): return 2 * x\ndef one(): return 1\n")
    slice_ = capture(load("pkg_c.deep.steps").step)
    assert "pkg_c/deep/steps.py" not in slice_.files, "an edit of another step must not change this one"
    assert run_elsewhere(slice_, tmp_path / "out") == 9


def test_namespace_packages_ship_what_is_reached(project, tmp_path):
    root = project()
    put(root, "space_d/alpha/__init__.py", "X = 1\n")
    put(root, "space_d/beta.py", "Y = 2\n")
    put(root, "space_d/unused.py", "")
    put(root, "flow_d.py", "from space_d.alpha import X\nfrom space_d import beta\ndef step(): return [X, beta.Y]\n")
    slice_ = capture(load("flow_d").step)
    assert "space_d/unused.py" not in slice_.files
    assert run_elsewhere(slice_, tmp_path / "out") == [1, 2]


def test_outside_imports_are_top_level_names(project):
    root = project()
    put(root, "mod_e.py", "import yaml\nfrom google.protobuf import message\nimport os, roblox_ml\n")
    put(
        root,
        "flow_e.py",
        """
        import numpy.linalg as la, json
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import pandas
        def step(x: "pandas.DataFrame" = None):
            import mod_e, importlib
            importlib.import_module("requests")
            try:
                import surely_not_installed
            except ImportError:
                pass
            return la, json
        """,
    )
    assert capture(load("flow_e").step).imports == {"numpy", "yaml", "google", "requests"}


def test_sdk_packages_are_never_bundled(project):
    root = project()
    put(root, "flow_f.py", "import roblox_ml as rml, roblox_ml_core\ndef step(): return rml, roblox_ml_core\n")
    slice_ = capture(load("flow_f").step)
    assert list(slice_.files) == ["rml_step.py"] and slice_.imports == frozenset()


def test_compiled_modules_and_secrets_in_files_are_refused(project):
    root = project()
    put(root, "lib_g/__init__.py", "")
    put(root, "lib_g/fast.cpython-311-x86_64-linux-gnu.so", "")
    put(root, "lib_g/conf.ini", "key = AKIAIOSFODNN7EXAMPLE\n")
    put(root, "lib_g/keys.py", "\nTOKEN = 'ghp_abcdefghijklmnopqrstuvwxyz0123'\n")
    put(root, "flow_g.py", "import lib_g\ndef step(): return lib_g\n")
    with pytest.raises(CaptureError) as caught:
        capture(load("flow_g").step)
    assert sorted(f.code for f in caught.value.findings) == ["compiled-module", "secret", "secret"]
    assert {"lib_g/keys.py:2", "lib_g/conf.ini:1"} <= {f.where for f in caught.value.findings}


def test_file_refusals_name_file_and_line(project, monkeypatch):
    root = project()
    monkeypatch.chdir(root)
    put(
        root,
        "flow_h.py",
        """
        import io
        client = io.StringIO()
        def step():
            return client, __file__
        if __name__ != "x":
            LATE = 1
        """,
    )
    with pytest.raises(CaptureError) as caught:
        capture(load("flow_h").step)
    assert [(f.code, f.where) for f in caught.value.findings] == [
        ("live-object", "flow_h.py:3"),
        ("file-path", "flow_h.py:5"),
    ]


def test_names_bound_under_the_main_guard(project, tmp_path):
    root = project()
    put(
        root,
        "script_i.py",
        """
        import sys
        from roblox_ml._capture import capture
        def step():
            return EPOCHS
        if __name__ == "__main__":
            EPOCHS = 3
            try:
                capture(step)
            except Exception as error:
                print(error.findings[0].code, error.findings[0].where)
        """,
    )
    done = subprocess.run([sys.executable, "script_i.py"], capture_output=True, text=True, cwd=root, timeout=60)
    assert done.stdout.split() == ["main-guard", "script_i.py:6"], done.stderr


def test_installed_from_a_local_folder_counts_as_local(tmp_path):
    site = tmp_path / "site-packages"
    for name, record in (
        ("one", {"url": "file:///src/one", "dir_info": {}}),
        ("two", {"url": "https://x/two.whl", "archive_info": {}}),
    ):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "direct_url.json").write_text(json.dumps(record))
        (info / "RECORD").write_text(f"{name}/__init__.py,,\n{name}-1.0.dist-info/RECORD,,\n../../bin/{name},,\n")
    assert _folder_installs(site, 0) == {"one"}


def test_editable_installs_are_found_through_their_path_file(tmp_path):
    """A `.pth` line or a PEP 610 editable puts the source folder on sys.path; the module's file says the rest."""
    source = tmp_path / "src" / "edit_pkg_j"
    source.mkdir(parents=True)
    (source / "__init__.py").write_text("V = 5\n")
    (tmp_path / "flow_j.py").write_text("from edit_pkg_j import V\ndef step(): return V\n")
    site = tmp_path / "site"
    site.mkdir()
    (site / "_editable.pth").write_text(str(tmp_path / "src") + "\n")
    code = (
        f"import site, sys; site.addsitedir({str(site)!r}); sys.path.insert(0, {str(tmp_path)!r}); import flow_j;"
        "from roblox_ml._capture import capture; print(sorted(capture(flow_j.step).files))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "['edit_pkg_j/__init__.py', 'rml_step.py']", done.stderr
