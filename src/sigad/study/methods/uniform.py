"""A control of the machinery: p-values drawn from U(0, 1), whatever the data. Its rejection rate must be alpha."""

import numpy as np

from sigad.study.methods import Problems, PValues

LABEL = "control: uniform"
APPLIES_TO = None
NEEDS_SELECTION = True


def pvalues(problems: Problems, streams) -> PValues:
    """Uniform random numbers from the methods' own streams."""
    return PValues.exact(np.array([stream.method().random() for stream in streams]))
