"""One training: recipe, loop, logs, checkpoints, resuming."""
