"""Runs and sweeps beside one another: `rml.compare(run, run)`, `rml.compare(sweep)`. Tables, differences, plots."""
