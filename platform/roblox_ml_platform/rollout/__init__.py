"""What may answer besides an endpoint's champion: experiments in layers, canaries, shadows, holdouts and kill switches."""
