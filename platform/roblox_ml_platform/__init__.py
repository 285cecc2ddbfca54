"""The control plane: versions, aliases, endpoints and what every door and agent must know."""
