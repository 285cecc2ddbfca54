"""The door: one address, Open Inference Protocol v2 over REST and gRPC, for every endpoint.

A client names an endpoint; which model version answers is the door's decision, taken from the control plane's snapshot.
Run it with `python -m roblox_ml_serving.door`. Public form: docs/formats/public-door.md; design: docs/design/door.md.
"""
