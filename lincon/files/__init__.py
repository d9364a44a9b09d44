"""Model files: reading and checking them, matching them with a model, and writing them."""
