"""What a step returned, written where the executor input says.

Parameters go into `executor_output.json` and into their own files (a launcher may read either); an artifact's directory
moves to its place. Only a temporary directory made for an artifact is moved: an input that is passed through, and a
folder the user pointed an artifact at, are copied, because they belong to somebody.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .._artifacts import Artifact, artifact_type
from ..errors import RmlSdkError
from . import values

__all__ = ["REPORT", "ReturnedWrong", "write"]

REPORT = "::rml outputs "
_LONGEST_REPORT = 200_000  # a line of a log must not fill the log


class ReturnedWrong(RmlSdkError):
    """A step returned something else than its signature promises."""


def write(
    executor_input: Mapping[str, Any],
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    returned: Any,
    lineage: Mapping[str, Any],
) -> None:
    """Write every declared output of the step; all wrong ones are reported at once."""
    declared = executor_input.get("outputs") or {}
    parameters: Mapping[str, Any] = declared.get("parameters") or {}
    artifacts: Mapping[str, Any] = declared.get("artifacts") or {}
    by_name = _by_name(function, [*parameters, *artifacts], returned)
    problems = list(_problems(parameters, artifacts, by_name, values.hints_of(function)))
    if problems:
        raise ReturnedWrong(
            f"{function.__name__}() returned something else than it declares: " + "; ".join(problems),
            fix="correct the return statement or the return annotation",
        )
    result: dict[str, Any] = {}
    if parameters:
        result["parameterValues"] = {name: values.to_json(by_name[name], name) for name in parameters}
        for name, target in parameters.items():
            _write_text(Path(target["outputFile"]), _as_text(result["parameterValues"][name]))
    if artifacts:
        place = _Mover(inputs)
        result["artifacts"] = {
            name: {"artifacts": [place(name, by_name[name], listed["artifacts"][0], lineage)]}
            for name, listed in artifacts.items()
        }
    # Last, and by rename: whoever sees it sees all outputs.
    target = Path(declared["outputFile"])
    fresh = target.with_name(f"{target.name}.new")
    text = json.dumps(result, allow_nan=False)
    _write_text(fresh, text)
    fresh.replace(target)
    if (pod := os.environ.get("KFP_POD_NAME")) and len(text) <= _LONGEST_REPORT:
        # The API of a cluster does not give outputs, and the log is all that is left of a pod: `run.outputs` reads this. The
        # pod's name says which iteration of a loop this was, wherever the log ends up.
        print(f"{REPORT}{json.dumps({**result, 'pod': pod}, allow_nan=False)}", flush=True)


def _by_name(function: Callable[..., Any], names: list[str], returned: Any) -> dict[str, Any]:
    """The returned value(s) by output name: one output is the value, several are a NamedTuple's fields."""
    if not names:
        return {}
    fields: tuple[str, ...] | None = getattr(returned, "_fields", None)
    if names == ["Output"] and fields != ("Output",):
        return {"Output": returned}
    if fields is not None and set(names) <= set(fields):
        return {name: getattr(returned, name) for name in names}
    if isinstance(returned, tuple):
        order = tuple(getattr(values.hints_of(function).get("return"), "_fields", ()))
        if len(order) == len(returned) and set(names) <= set(order):
            return {name: value for name, value in zip(order, returned, strict=True) if name in names}
    raise ReturnedWrong(
        f"{function.__name__}() returned {_shown(returned)} where its outputs are {', '.join(sorted(names))}",
        fix="return the NamedTuple that the annotation names",
    )


def _problems(
    parameters: Mapping[str, Any], artifacts: Mapping[str, Any], by_name: Mapping[str, Any], hints: Mapping[str, Any]
) -> Iterator[str]:
    declared: Any = hints.get("return")
    fields: Mapping[str, Any] = values.hints_of(declared) if hasattr(declared, "_fields") else {"Output": declared}
    for name in parameters:
        value = by_name[name]
        if isinstance(value, Artifact):
            yield f"{name} is an artifact, declared as a parameter"
        elif value is None and not values.is_optional(fields.get(name)):
            yield f"{name} is None"
        else:
            yield from _wrong_scalar(name, value, fields.get(name))
    for name, listed in artifacts.items():
        value = by_name[name]
        title = (listed["artifacts"][0].get("type") or {}).get("schemaTitle", "system.Artifact")
        wanted = artifact_type(title)
        if not isinstance(value, wanted):
            yield f"{name} is {_shown(value)}, declared as rml.{wanted.__name__}"
        elif not value.path.exists():
            yield f"the files of {name} are gone: the step deleted or moved {value.path}"


def _wrong_scalar(name: str, value: Any, hint: Any) -> Iterator[str]:
    accepted: dict[type, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}
    plain = value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value
    if hint in accepted and plain is not None and not isinstance(plain, accepted[hint]):
        yield f"{name} is {_shown(value)}, declared as {hint.__name__}"


class _Mover:
    """Puts artifacts' directories in place, remembering what it moved: one artifact may be returned twice."""

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self.moved: dict[Path, Path] = {}
        listed = [a for v in inputs.values() for a in (v if isinstance(v, list) else [v])]
        self.kept = {a.path.resolve() for a in listed if isinstance(a, Artifact)}

    def __call__(
        self, name: str, artifact: Artifact, declared: Mapping[str, Any], lineage: Mapping[str, Any]
    ) -> dict[str, Any]:
        from .executor import local_path

        target = Path(declared.get("customPath") or local_path(declared["uri"]))
        target.parent.mkdir(parents=True, exist_ok=True)
        self._place(artifact, target)
        own = {k: v for k, v in artifact.metadata.items() if k not in lineage or k == "rml.data"}
        metadata = {**values.to_json(own, f"{name}.metadata"), **lineage}
        if own.get("rml.data"):
            metadata["rml.data"] = sorted({*own["rml.data"], *lineage.get("rml.data", [])})
        return {"name": declared.get("name") or name, "uri": declared["uri"], "metadata": metadata}

    def _place(self, artifact: Artifact, target: Path) -> None:
        source = artifact.path.resolve()
        if source == target.resolve():
            return
        if target.is_dir():
            target.rmdir()  # an executor may have made it; one that holds files is a mistake to be heard of
        if source in self.moved:
            shutil.copytree(self.moved[source], target, symlinks=True)
        elif source not in self.kept and _is_temporary(source):
            shutil.move(source, target)
            self.moved[source] = target
        elif source.is_dir():
            shutil.copytree(source, target, symlinks=False)
        else:
            shutil.copy2(source, target)


def _is_temporary(path: Path) -> bool:
    return path.name.startswith("rml-") and path.parent == Path(tempfile.gettempdir()).resolve()


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, allow_nan=False)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
