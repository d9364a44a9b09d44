"""A step: how a forward gets its weights, and how its backward hands gradients to the free vectors."""
