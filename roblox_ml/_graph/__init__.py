"""The pipeline as a graph: decorators, tracing, checks and the KFP pipeline spec.

Pure and standard library only (the one exception, PyYAML, is loaded when a spec is dumped): this package travels into
steps, because a step's module imports `rml.step`. No network, no kfp.
"""
