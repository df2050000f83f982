"""What became of an expected frame; a column `outcome` holds these words."""

SCORED, NO_FACE, UNREADABLE, MISSING, FAILED = OUTCOMES = (
    "scored",
    "no_face",
    "unreadable",
    "missing",
    "failed",
)
"""It has a score; no face was found in it; its file could not be decoded; a file of scores has
nothing for it; or the detector crashed or gave no usable score."""

NO_FRAME = -1
"""The index in the row of a video of which there is no frame."""
