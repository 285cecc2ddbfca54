"""What changed between two model versions: metrics, parameters, lineage, files, and the code itself where it is stored.

Pure: two descriptions and the two code bundles in, a `Diff` out.
"""

from __future__ import annotations

import difflib
import html
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Change", "Diff", "code_diff", "compare"]

_LARGEST_FILE = 1 << 20
_LINES = 2000


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: where, and the value on each side (None: absent there)."""

    kind: str
    key: str
    a: Any
    b: Any

    @property
    def delta(self) -> float | None:
        """b - a for two numbers, else None."""
        numbers = [x for x in (self.a, self.b) if isinstance(x, int | float) and not isinstance(x, bool)]
        return numbers[1] - numbers[0] if len(numbers) == 2 else None


@dataclass(frozen=True, slots=True)
class Diff:
    """The differences of version `b` from version `a`; `code` is a unified diff, empty where the code is the same or unknown."""

    a: str
    b: str
    changes: tuple[Change, ...]
    code: str
    code_note: str

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.changes or self.code)

    def of(self, kind: str) -> tuple[Change, ...]:
        """The changes of one kind: metrics, params, tags, lineage, signature, files."""
        return tuple(change for change in self.changes if change.kind == kind)

    def __str__(self) -> str:
        lines = [f"{self.a} -> {self.b}"]
        if not self:
            lines.append("  no difference")
        kind = ""
        for change in self.changes:
            if change.kind != kind:
                kind = change.kind
                lines.append(f"{kind}:")
            lines.append(f"  {change.key}: {_text(change.a)} -> {_text(change.b)}{_delta(change)}")
        lines.append(f"code: {self.code_note}")
        return "\n".join([*lines, self.code] if self.code else lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(c.kind)}</td><td>{html.escape(c.key)}</td><td>{html.escape(_text(c.a))}</td>"
            f"<td>{html.escape(_text(c.b))}{html.escape(_delta(c))}</td></tr>"
            for c in self.changes
        )
        head = f"<tr><th></th><th></th><th>{html.escape(self.a)}</th><th>{html.escape(self.b)}</th></tr>"
        table = (
            f"<table>{head}{rows}</table>" if rows else "<p>no difference in metrics, parameters, lineage or files</p>"
        )
        code = "".join(_code_line(line) for line in self.code.splitlines())
        return f"<div>{table}<p>code: {html.escape(self.code_note)}</p>{f'<pre>{code}</pre>' if code else ''}</div>"


def compare(a: Mapping[str, Any], b: Mapping[str, Any], code: tuple[str, str] = ("", "")) -> Diff:
    """Compare two versions as the control plane describes them; `code` is `code_diff`'s answer (diff, note)."""
    changes: list[Change] = []
    for kind in ("metrics", "params", "tags", "lineage", "signature"):
        changes += _changes(kind, _flat(a.get(kind)), _flat(b.get(kind)))
    files = [
        {path: f"{entry['sha256'][:12]} ({entry['size']} B)" for path, entry in side["manifest"].items()}
        for side in (a, b)
    ]
    changes += _changes("files", *files)
    names = (f"{a['name']}/{a['version']}", f"{b['name']}/{b['version']}")
    return Diff(*names, tuple(changes), *code)


def code_diff(a: bytes | None, b: bytes | None) -> tuple[str, str]:
    """A unified diff of two code bundles and a sentence about it; the diff is empty when a bundle is not at hand."""
    if a is None or b is None:
        which = "neither bundle is" if a is None and b is None else "one bundle is not"
        return "", f"{which} in the store"
    if a == b:
        return "", "the same bundle"
    before, after = _sources(a), _sources(b)
    lines: list[str] = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, "").splitlines(), after.get(name, "").splitlines()
        lines += difflib.unified_diff(old, new, f"a/{name}", f"b/{name}", lineterm="")
    if not lines:
        return "", "the same sources in another bundle"
    note = f"{sum(line.startswith('@@') for line in lines)} places differ"
    if len(lines) > _LINES:
        note += f", the first {_LINES} lines are shown"
    return "\n".join(lines[:_LINES]), note


def _sources(bundle: bytes) -> dict[str, str]:
    """The text files of a bundle. Bundles may come from anywhere, so sizes are checked before anything is unpacked."""
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            for entry in archive.infolist():
                if entry.is_dir() or entry.filename == "MANIFEST.json":
                    continue
                if entry.file_size > _LARGEST_FILE:
                    found[entry.filename] = f"({entry.file_size} bytes, crc {entry.CRC:08x})"
                    continue
                text = archive.read(entry).decode("utf-8", "replace")
                found[entry.filename] = f"(binary, crc {entry.CRC:08x})" if "\0" in text else text
    except (zipfile.BadZipFile, RuntimeError) as error:
        return {"(unreadable bundle)": str(error)}
    return found


def _changes(kind: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Change]:
    keys = sorted({*a, *b})
    return [Change(kind, key, a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted keys, so that one changed leaf is one line."""
    if isinstance(value, Mapping):
        return {
            k: v
            for key, item in value.items()
            for k, v in _flat(item, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    return {prefix: value} if prefix else {}


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _delta(change: Change) -> str:
    return "" if change.delta is None else f" ({change.delta:+.6g})"


def _code_line(line: str) -> str:
    color = {"+": "#1a7f37", "-": "#cf222e", "@": "#6639ba"}.get(line[:1])
    text = html.escape(line)
    return f'<span style="color:{color}">{text}</span>\n' if color else text + "\n"
