"""`python -m roblox_ml_serving.door`: run the door with the settings of the environment (`RML_DOOR_*`)."""

from __future__ import annotations

import sys

import uvloop
from roblox_ml_core.telemetry import configure_logging

from .process import PortTaken, run


def main() -> int:
    configure_logging("door")
    try:
        uvloop.run(run())
    except PortTaken as error:
        print(f"door: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
