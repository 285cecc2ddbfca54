"""What dies, or is too much, while clients ask: how many of them notice, and for how long."""
