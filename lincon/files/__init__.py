"""Model files: what they hold, whether they fit a model, writing them whole."""
