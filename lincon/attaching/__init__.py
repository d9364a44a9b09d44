"""The model: which of its tensors are generated, from which free vectors, and what holds them."""
