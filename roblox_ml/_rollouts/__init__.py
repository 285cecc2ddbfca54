"""What answers beside the champion, as a data scientist writes it: experiments, canaries, shadows, and what they did."""
