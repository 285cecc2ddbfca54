"""The records as Prometheus families, made when somebody scrapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .service import Records

__all__ = ["families"]


def families(records: Records) -> list[Any]:
    """Every row offered is in exactly one of the others: written, buffered, dropped, sampled out, lost."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    def counter(name: str, text: str, *labels: str) -> Any:
        return CounterMetricFamily(f"rml_records_{name}", text, labels=("stream", *labels))

    offered = counter("offered", "Rows offered, over all lives of this door")
    written = counter("written", "Rows in finished files")
    sampled = counter("sampled_out", "Rows not kept because of the endpoint's rate")
    lost = counter("lost", "Rows that were in memory when the door ended without its end")
    dropped = counter("dropped", "Rows dropped", "reason")
    failures = counter("write_failures", "Attempts to write a file that failed")
    buffered = GaugeMetricFamily("rml_records_buffered_rows", "Rows in memory", labels=("stream",))
    size = GaugeMetricFamily("rml_records_buffered_bytes", "Bodies in memory", labels=("stream",))
    failing = GaugeMetricFamily("rml_records_failing", "1 while files cannot be written", labels=("stream",))
    last = GaugeMetricFamily("rml_records_last_written_seconds", "When a file was last written", labels=("stream",))
    for name, stream in records.streams.items():
        account = stream.accounts()
        for family, value in (
            (offered, account.offered), (written, account.written), (sampled, account.sampled_out), (lost, account.lost),
            (buffered, account.buffered), (size, stream.buffered_bytes), (failing, float(stream.failing)),
        ):  # fmt: skip
            family.add_metric((name,), value)
        for reason, rows in account.dropped.items():
            dropped.add_metric((name, reason), rows)
        if (writer := records.writers.get(name)) is not None:
            failures.add_metric((name,), writer.failures)
            last.add_metric((name,), writer.last_written)
    found = [offered, written, sampled, lost, dropped, failures, buffered, size, failing, last]
    if records.shipper is not None:
        pending = GaugeMetricFamily("rml_records_pending_files", "Files that are not in the bucket yet")
        pending.add_metric((), records.shipper.pending())
        found.append(pending)
    return found
