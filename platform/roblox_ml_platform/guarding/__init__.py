"""The guard: counts of doors are compared while a rollout runs, and what is worse than what it replaces is taken back."""
