"""Language: the next byte of a text by a small GPT, whose blocks' weights are generated."""
