"""What the platform's statistics promise, checked by simulation on a larger scale than the tests do: `make bench-experiments`."""
