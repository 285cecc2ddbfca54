"""Serving: model package to Triton repository, the agent beside Triton, the door in front of it."""
