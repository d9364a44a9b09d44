"""The sixteen joints of MPII (Andriluka et al. 2014), in its order, for all data and models."""

JOINTS = (
    *("right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle"),
    *("pelvis", "thorax", "upper neck", "head top"),
    *("right wrist", "right elbow", "right shoulder", "left shoulder", "left elbow", "left wrist"),
)
"""Names of the joints; left and right are the person's own."""

MIRRORED = (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10)
"""For each joint, its counterpart in a mirrored picture."""

BONES = (
    *((0, 1), (1, 2), (2, 6), (3, 6), (3, 4), (4, 5)),
    *((6, 7), (7, 8), (8, 9)),
    *((10, 11), (11, 12), (12, 7), (13, 7), (13, 14), (14, 15)),
)
"""Pairs of joints that a drawn skeleton connects."""

UNSCORED = (6, 7)
"""Pelvis and thorax, which PCKh leaves out."""
