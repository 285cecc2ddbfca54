"""`python -m roblox_ml.cli`, for environments whose scripts folder is not on PATH."""

from . import main

main()
