"""Optimise a text classifier for CPUs."""
