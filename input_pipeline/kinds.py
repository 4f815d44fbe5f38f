"""What all parts agree on: kinds of attributes, areas of their masks, the number of keypoints."""

KINDS = ("hair", "glasses", "beard", "hat")
NUM_KEYPOINTS = 478
# Shares of the picture between which a mask can be that of an attribute.
MIN_ATTRIBUTE_AREA, MAX_ATTRIBUTE_AREA = 0.005, 0.7
MAX_BAD_MASKS = 0.1  # share of a chunk's frames whose mask may be too small or too large
