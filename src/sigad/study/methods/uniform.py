"""A control of the machinery: p-values drawn from U(0, 1), whatever the data. Its rejection rate must be alpha."""

import numpy as np

from sigad.study.methods import Method
from sigad.study.problems import Problems, PValues


class Uniform(Method[Problems]):
    """Uniform random numbers from the methods' own streams."""

    label = "control: uniform"

    def pvalues(self, problems: Problems, streams) -> PValues:
        return PValues.exact(np.array([stream.method().random() for stream in streams]))
