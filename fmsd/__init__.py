"""fmsd: a research framework for parameter-efficient deepfake detectors."""

from fmsd.torchvision_operators import declare

declare()
