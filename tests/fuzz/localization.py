"""Random problems of the localization test with small networks, against the detector itself along the line: rounded
images, extreme scales, thresholds next to a score."""

import numpy as np
import torch
from torch import nn

from sigad.errors import NumericalError
from sigad.inference.exact import exact
from sigad.localization.contrast import contrast
from sigad.localization.detector import Detector
from sigad.localization.hypothesis import MaskHypothesis
from tests.fuzz import AGREES, fuzzer
from tests.fuzz.knn import compare, points


def random_network(rng, channels, scale):
    """Convolutions with ReLU or max pooling between them, in double precision; biases in units of a scale."""
    width = int(rng.integers(1, 4))
    between = [nn.ReLU(), nn.LeakyReLU(0.2), nn.MaxPool2d(3, 1, 1), nn.Hardtanh(-scale, scale)][rng.integers(4)]
    network = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), between, nn.Conv2d(width, channels, 1)).double()
    step = rng.choice([0.0, 0.25, 0.5])
    for name, p in network.named_parameters():
        values = 0.7 * rng.normal(size=tuple(p.shape))
        values = np.round(values / step) * step if step else values
        p.data = torch.from_numpy(values * (scale if name.endswith("bias") else 1.0))
    return network.eval()


@fuzzer("localization networks")
def network(seed):
    """The region that the exact engine finds, against the marked pixels."""
    rng = np.random.default_rng((3, seed))
    channels, size, scale = (
        int(rng.integers(1, 3)),
        int(rng.integers(2, 6)),
        2.0 ** int(rng.choice([0, 0, 0, -300, 300])),
    )
    x, x_ref = rng.normal(size=(2, channels, size, size))
    if rng.random() < 0.4:
        x, x_ref = (np.round(v * 4) / 4 for v in (x, x_ref))
    x, x_ref = scale * x, scale * x_ref
    detector = Detector(random_network(rng, channels, scale), threshold=0.0, filter_size=int(rng.choice([1, 3])))
    scores = np.sort(detector.detect(x).scores.ravel())
    chosen = scores[rng.integers(len(scores))]
    detector = detector.with_threshold(chosen + scale * rng.choice([0.05, -0.05, 1e-8, -1e-8, 1e-11, -1e-11, 0.0]))
    mask = detector.detect(x).mask
    if not mask.any():
        return "not_selected"
    hypothesis = MaskHypothesis(detector, x, mask, contrast(mask, x, x_ref, scale**2))

    def margin(z):
        images = hypothesis.contrast.images(x, z)
        away = np.abs(detector.scores(images) - detector.threshold).min(axis=(1, 2))
        return away / (scale + np.abs(images).max(axis=(1, 2, 3)))

    t = hypothesis.statistic
    try:
        result = exact(hypothesis, exhaustive=True)
    except NumericalError as error:
        near = np.array([t - 1e-9, t, t + 1e-9])
        assert margin(near).min() < 1e-9, f"refused without a tie: {error}"
        return "tied"
    z = points(result.region, *result.searched, rng, t)
    compare(result.region, z, hypothesis.same(z), margin(z))
    return AGREES
