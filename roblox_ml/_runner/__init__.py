"""The runner: starts, on this machine, the runs that the control plane's scheduler has made due. `python -m roblox_ml._runner`.

It holds no user code: it reads a published pipeline's IR from the store and gives it to the local executor, under the run id
that the scheduler derived from the due time. A run's folder appears under that id by a rename, so a second start is impossible
wherever the first one was killed. docs/design/scheduler.md.
"""
