"""One module per protocol: each takes a channel, an event and its summary, and says what became of the attempt."""
