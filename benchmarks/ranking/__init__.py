"""How long rankings hold the door's event loop."""
