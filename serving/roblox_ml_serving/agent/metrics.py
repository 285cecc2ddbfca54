"""The agent's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram
from roblox_ml_core.telemetry import LATENCY_BUCKETS

__all__ = ["CHECKS", "LOADS", "LOAD_SECONDS", "MEMORY_BYTES", "POLLS", "RELOADS", "RESIDENT", "UNLOADS"]

LOADS = Counter("rml_agent_loads_total", "Attempts to make a version resident", ["outcome"])
LOAD_SECONDS = Histogram(
    "rml_agent_load_seconds", "From the decision to load to the known answer", buckets=LATENCY_BUCKETS
)
RELOADS = Counter("rml_agent_reloads_total", "Versions loaded again because an instance ended or answered wrongly")
UNLOADS = Counter("rml_agent_unloads_total", "Versions taken out of Triton")
CHECKS = Counter("rml_agent_known_answers_total", "Known answers asked", ["outcome"])
RESIDENT = Gauge("rml_agent_resident_versions", "Versions Triton has loaded")
MEMORY_BYTES = Gauge("rml_agent_resident_bytes", "Memory of the instances' processes")
POLLS = Counter("rml_agent_control_plane_calls_total", "Calls to the control plane", ["call", "outcome"])
