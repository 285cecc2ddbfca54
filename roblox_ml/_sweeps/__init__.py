"""Sweeps: a pipeline over a space of parameters, on Optuna, resumable. `rml.sweep`, and `rml.report` inside steps.

`space`, `reports` and `record` are standard library; only the driver (`optimiser`, `driving`) needs Optuna.
"""
