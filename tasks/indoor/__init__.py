"""Indoor scenes: depth and normals from cascades of sub-networks whose weights are shared."""
