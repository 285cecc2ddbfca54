"""What runs inside a step: stage 0, bootstrap, environment store, executor, system steps. Standard library only.

A step's environment holds what the step imports and nothing else, so neither KFP nor any of this project's own
dependencies may be needed here. The path from `python3` to the user's first line is also the latency of every step:
modules that only some steps need are imported by those steps.
"""
