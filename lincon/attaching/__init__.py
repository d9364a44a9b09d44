"""Attaching constraints to a model: which tensors are generated, from which free vectors."""
