"""A step: how a forward gets its weights, and how the free vectors get their gradients."""
