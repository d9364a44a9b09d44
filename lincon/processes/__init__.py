"""Many processes: sharded parameters, and checks that all ranks agree."""
