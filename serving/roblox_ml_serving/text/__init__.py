"""Text models: requests, batches and answers at the door; the optimiser that makes them fast."""
