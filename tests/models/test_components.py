"""Reconstruction by principal components: a projection, and a detector that the exact engine takes."""

import numpy as np
import pytest
import torch

from sigad import localization_test
from sigad.errors import InvalidInputError
from sigad.inference.lattice import Lattice
from sigad.models.components import ComponentReconstruction


def test_it_is_the_nearest_image_in_the_span():
    rng = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(64, 3, generator=rng, dtype=torch.float64))[0].T
    images = (torch.randn(40, 3, generator=rng, dtype=torch.float64) @ basis).reshape(40, 1, 8, 8) + 2
    exact = ComponentReconstruction(images, 3)
    torch.testing.assert_close(exact(images), images)
    x = torch.randn(5, 1, 8, 8, generator=rng, dtype=torch.float64)
    residual = (x - exact(x)).flatten(1)
    torch.testing.assert_close(residual @ basis.T, torch.zeros(5, 3, dtype=torch.float64), atol=1e-12, rtol=0)
    mean = ComponentReconstruction(images)
    torch.testing.assert_close(mean(x), images.mean(0).expand_as(x))
    assert torch.equal(ComponentReconstruction(images.numpy()).mean, mean.mean)
    with pytest.raises(InvalidInputError, match="finite"):
        ComponentReconstruction(images * torch.nan)
    with pytest.raises(InvalidInputError, match="more images"):
        ComponentReconstruction(images, 40)


@pytest.mark.parametrize("components", [0, 4])
def test_the_engines_agree_on_it(components):
    rng = np.random.default_rng(1)
    network = ComponentReconstruction(torch.from_numpy(rng.standard_normal((30, 1, 8, 8))), components)
    x = rng.standard_normal((1, 8, 8))
    x[0, 2:5, 2:5] += 2
    given = {"threshold": 0.9, "covariance": 1.0, "resolution": 4}
    references = rng.standard_normal((6, 1, 8, 8))
    exact = localization_test(network, x, references, **given, tolerance=1e-6)
    fine = localization_test(network, x, references, **given, engine=Lattice(spacing=0.005), tolerance=1e-6)
    assert exact.status == fine.status == "tested"
    assert exact.p_value == pytest.approx(fine.p_value, abs=0.01)
