"""What experiments train if they are not told; the defaults of their commands."""

CONTRASTED = "vanilla", "rpg"
CONTRASTED_DOF = 0.5, 0.1
"""Of convergence, and of the generalization of classification."""

SCALED = "resnet-small", "resnet-medium"
SCALED_DOF = 0.01, 0.02, 0.05, 0.1, 0.2, 0.5
"""Of scaling."""

SEEDS = 3
TRIALS = 3
"""Of each setting that is tuned."""
