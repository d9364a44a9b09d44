"""Many processes: sharded parameters, and what all ranks agree on."""
