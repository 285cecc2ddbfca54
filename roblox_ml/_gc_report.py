"""The collector's plan as people read it: a table of what is kept, what went (or would go), and why some things stay."""

from __future__ import annotations

from dataclasses import dataclass

from ._gc import Plan
from ._preview import human_bytes

__all__ = ["Report"]

_KINDS = ("run", "result", "environment", "copy", "blob")


@dataclass(frozen=True, slots=True)
class Report:
    """What was found and what went (or would go). `str()`, `rich` and notebooks show it as a table."""

    plan: Plan
    dry_run: bool

    @property
    def freed(self) -> int:
        """Bytes that went, or would go."""
        return sum(node.size for node in self.plan.delete)

    def rows(self) -> list[tuple[str, int, int, int, int, str]]:
        """(kind, kept, bytes kept, deleted, bytes deleted, remark) for each kind."""
        rows = []
        for kind in _KINDS:
            kept = [node for node in self.plan.keep if node.kind == kind]
            gone = [node for node in self.plan.delete if node.kind == kind]
            sizes = sum(node.size for node in kept), sum(node.size for node in gone)
            rows.append((kind, len(kept), sizes[0], len(gone), sizes[1], self.plan.why.get(kind, "")))
        return rows

    def __str__(self) -> str:
        verb = "would delete" if self.dry_run else "deleted"
        lines = [f"{'':12} {'kept':>6} {'bytes':>10} {verb:>13} {'bytes':>10}"]
        for kind, kept, size, gone, freed, why in self.rows():
            lines.append(
                f"{kind:12} {kept:6} {human_bytes(size):>10} {gone:13} {human_bytes(freed):>10}  {why}".rstrip()
            )
        if self.dry_run and self.plan.delete:
            lines.append("nothing was deleted; to delete: rml.gc(dry_run=False), or `rml gc --delete`")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = f"<tr><th></th><th>kept</th><th></th><th>{'would go' if self.dry_run else 'gone'}</th><th></th><th></th></tr>"
        body = "".join(
            f"<tr><td>{kind}</td><td>{kept}</td><td>{human_bytes(size)}</td><td>{gone}</td><td>{human_bytes(freed)}</td><td>{why}</td></tr>"
            for kind, kept, size, gone, freed, why in self.rows()
        )
        return f"<table>{head}{body}</table>"
