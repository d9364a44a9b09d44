"""Human pose estimation by cascades of sub-networks whose weights are shared."""
