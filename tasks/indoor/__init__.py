"""Indoor scenes: depth and surface normals, regressed by cascades of sub-networks whose weights are shared."""
