"""What a million inferences cost on machines whose price is known, from measured CPU time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MACHINES", "Cost", "Machine", "cost_per_million", "costs", "gpu_cost"]


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as a price list names it."""

    name: str
    vcpus: int
    usd_per_hour: float
    says: str  # where the price is from


# On-demand list prices, Linux, us-east-1. They are stated so that figures can be compared; pass your own.
MACHINES: tuple[Machine, ...] = (
    Machine("c5.9xlarge", 36, 1.53, "the article's machine class; on-demand list price, us-east-1"),
    Machine("c7a.8xlarge", 32, 1.64224, "Zen 4, a vCPU is a core; on-demand list price, us-east-1"),
    Machine(
        "c7i.8xlarge", 32, 1.428, "Sapphire Rapids with AMX, a vCPU is half a core; on-demand list price, us-east-1"
    ),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """One machine's price for a million inferences at a stated load."""

    machine: str
    usd_per_million: float
    per_second: float  # of the whole machine at that load


def cost_per_million(machine: Machine, cpu_ms_per_inference: float, load: float = 0.5) -> Cost:
    """The machine runs at `load` of what its cores could do; every vCPU is taken as one core of the machine measured."""
    if cpu_ms_per_inference <= 0 or not 0 < load <= 1:
        raise ValueError(f"CPU time must be positive and load in (0, 1], not {cpu_ms_per_inference} and {load}")
    rate = machine.vcpus * load * 1e3 / cpu_ms_per_inference
    return Cost(machine.name, machine.usd_per_hour / 3600 / rate * 1e6, rate)


def costs(cpu_ms_per_inference: float, machines: Sequence[Machine] = MACHINES, load: float = 0.5) -> list[Cost]:
    """`cost_per_million` on each machine."""
    return [cost_per_million(machine, cpu_ms_per_inference, load) for machine in machines]


def gpu_cost(machine: Machine, per_second: float, load: float = 0.5) -> Cost:
    """A machine with the GPU that was measured, at `load` of what the GPU did."""
    if per_second <= 0 or not 0 < load <= 1:
        raise ValueError(f"the rate must be positive and load in (0, 1], not {per_second} and {load}")
    return Cost(machine.name, machine.usd_per_hour / 3600 / (per_second * load) * 1e6, per_second * load)
