"""Telling people: events, and the outbox from which each reaches its channels at least once."""
