"""From imports to pins: pure, over made-up installations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roblox_ml._env._closure import close, roots_of
from roblox_ml._env._installed import Distribution, Installed


def site(*distributions: Distribution) -> Installed:
    return Installed.of(distributions)


def dist(
    name: str, *requires: str, imports: tuple[str, ...] = (), origin: str = "index", version: str = "1"
) -> Distribution:
    return Distribution(name, version, requires, imports or (name.replace("-", "_"),), origin)


def test_owners_of_imports_are_found_and_the_standard_library_is_not_asked() -> None:
    here = site(dist("scikit-learn", imports=("sklearn",)), dist("yaml-thing", imports=("yaml",)))
    roots = roots_of({"sklearn", "json", "os", "roblox_ml", "roblox_ml_core"}, (), here)
    assert roots.names == ("scikit-learn",) and not roots.findings and not roots.local


def test_a_namespace_brings_all_its_owners() -> None:
    here = site(dist("google-a", imports=("google",)), dist("google-b", imports=("google",)))
    assert roots_of({"google.protobuf"}, (), here).names == ("google-a", "google-b")


def test_companions_come_only_when_installed() -> None:
    pandas, pyarrow = dist("pandas"), dist("pyarrow")
    assert roots_of({"pandas"}, (), site(pandas)).names == ("pandas",)
    assert roots_of({"pandas"}, (), site(pandas, pyarrow)).names == ("pandas", "pyarrow")
    text = [dist(name) for name in ("transformers", "torch", "onnx", "onnxscript", "onnxruntime")]
    assert set(roots_of({"transformers"}, (), site(*text)).names) == {found.name for found in text}


def test_every_missing_import_is_a_finding_with_its_pip_name() -> None:
    roots = roots_of({"sklern_xyz", "cv2", "nump"}, (), site(dist("numpy")))
    assert [finding.code for finding in roots.findings] == ["missing-import"] * 3
    text = "\n".join(map(str, roots.findings))
    assert "opencv-python-headless" in text and "did you mean 'numpy'" in text and "pip install sklern-xyz" in text


def test_a_package_asked_for_and_not_installed_may_bring_any_import() -> None:
    assert roots_of({"brand_new"}, ("brand-new-dist",), site()).findings == ()
    assert roots_of({"brand_new"}, ("numpy",), site(dist("numpy"))).findings


def test_source_on_this_machine_is_local() -> None:
    assert roots_of({"pytest"}, (), site()).local == ("pytest",), "importable, but owned by no distribution here"


def test_the_closure_follows_requirements_markers_and_extras() -> None:
    here = site(
        dist("a", "b>=1", "c[fast]; python_version >= '3'", "never; python_version < '3'", "opt; extra == 'all'"),
        dist("b", "a"),
        dist("c", "d; extra == 'fast'", "e; extra == 'slow'"),
        *map(dist, ("d", "e", "never", "opt", "unrelated")),
    )
    assert list(close(["a"], here).pins) == ["a", "b", "c", "d"]


def test_extras_asked_for_later_are_still_followed() -> None:
    here = site(dist("a", "c", "b"), dist("b", "c[fast]"), dist("c", "d; extra == 'fast'"), dist("d"))
    assert list(close(["a"], here).pins) == ["a", "b", "c", "d"]


def test_what_is_required_but_not_installed_is_left_out() -> None:
    assert dict(close(["a"], site(dist("a", "gone>=2", "bro ken"))).pins) == {"a": "1"}


def test_source_installs_are_not_locked_but_what_they_need_is() -> None:
    closure = close(["mine"], site(dist("mine", "b[x]>=1", origin="local"), dist("b")))
    assert dict(closure.pins) == {"b": "1"}
    assert closure.local == ("mine",) and closure.local_requires == ("b[x]>=1",)


@pytest.mark.parametrize("origin", ["url", "vcs"])
def test_what_no_index_has_is_pinned_and_carried(origin: str) -> None:
    closure = close(["from-disk"], site(dist("from-disk", "b", origin=origin), dist("b")))
    assert dict(closure.pins) == {"b": "1", "from-disk": "1"} and closure.carried == ("from-disk",)
    assert not closure.local


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.frozensets(st.sampled_from("abcdefghxy"), max_size=4)), st.data()
)
def test_the_closure_is_closed_minimal_and_monotone(graph, data) -> None:
    here = site(*(dist(name, *sorted(needs)) for name, needs in graph.items()))
    roots = data.draw(st.frozensets(st.sampled_from("abcdefgh"), max_size=3))
    pins = close(roots, here).pins
    assert list(pins) == sorted(pins)
    assert roots & graph.keys() <= pins.keys() <= graph.keys()
    for name in pins:
        assert graph[name] & graph.keys() <= pins.keys()
        assert name in roots or any(name in graph[other] for other in pins), "nothing without a reason"
    assert close(roots | {"a"}, here).pins.keys() >= pins.keys()
