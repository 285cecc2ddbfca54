"""An explanation as plain text: for a terminal, a log, a test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ._preview import human_bytes

if TYPE_CHECKING:
    from ._explain import Explanation

__all__ = ["headline", "text"]

_CODE_WIDTH = 88


def headline(told: Explanation) -> str:
    """One sentence: what goes, or that nothing can."""
    if not told.ships:
        count = len(told.findings)
        return f"step {told.step} cannot be shipped as it stands: {count} finding{'' if count == 1 else 's'}"
    cells = {line.where.rpartition(", line ")[0] or line.where.rpartition(":")[0] for line in told.lines if line.where}
    kind = "cell" if any(cell.startswith("cell ") for cell in cells) else "file"
    parts = [f"{_count(len(told.lines), 'line')} of {_count(len(cells), kind)}"]
    if told.files:
        parts.append(_count(len(told.files), "file"))
    parts.append(_count(told.pins, "package"))
    return f"step {told.step} ships {', '.join(parts)}"


def text(told: Explanation) -> str:
    """The whole explanation."""
    return "\n".join([headline(told), *_sections(told)])


def _sections(told: Explanation) -> Iterator[str]:
    if told.lines:
        yield ""
        yield from _lines(told)
    shown = [finding for line in told.lines for finding in line.findings]
    for finding in told.findings:
        if finding not in shown:
            yield ""
            yield str(finding)
    if told.files:
        yield "\nfiles that go along"
        width = max(len(file.path) for file in told.files)
        yield from (f"  {file.path:<{width}}  {human_bytes(file.size)}" for file in told.files)
    if told.packages or told.lock:
        yield "\nenvironment"
        width = max((len(package.module) for package in told.packages), default=0)
        for package in told.packages:
            pin = f"{package.distribution}=={package.version}" if package.version else package.distribution
            what = f"import {package.module:<{width}}" if package.module else f"{'asked for':<{width + 7}}"
            yield f"  {what}  {pin}"
        if told.pins > len(told.packages):
            yield f"  and what these need: {_count(told.pins, 'package')} in all"
        yield from (f"  system package {name}" for name in told.system)
        if told.lock:
            where = "this interpreter has all of it" if told.in_place else "built once, then kept"
            yield f"  lock {told.lock[:12]}, {human_bytes(told.lock_size)}; {where}"
            yield f"  bundle {told.bundle[:12]}, {human_bytes(told.bundle_size)}"
    if told.drift:
        yield "\ndrift"
        yield from (f"  {note}" for note in told.drift)
    if told.left_out:
        yield "\nleft out"
        width = max(len(item.where) for item in told.left_out)
        for item in told.left_out:
            yield f"  {item.where:<{width}}  {_cut(item.text, 50):<50}  {item.why}"


def _lines(told: Explanation) -> Iterator[str]:
    place = max(len(line.where) for line in told.lines)
    code = min(max(len(line.text) for line in told.lines), _CODE_WIDTH)
    last = ""
    for line in told.lines:
        why = "" if line.why == last else line.why
        last = line.why
        yield f"  {line.where:<{place}}  {line.text:<{code}}  {'# ' + why if why else ''}".rstrip()
        for finding in line.findings:
            pad = " " * (place + 4)
            yield f"{pad}✗ {finding.message} [{finding.code}]"
            yield from (
                f"{pad}  {name}: {words}" for name, words in (("why", finding.why), ("fix", finding.fix)) if words
            )


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
