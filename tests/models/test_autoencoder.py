"""The plain autoencoder: piecewise linear, trained, saved, and taken by the localization test."""

import numpy as np
import pytest
import torch

from sigad import localization_test
from sigad.errors import ConfigurationError, InvalidInputError
from sigad.models.autoencoder import Autoencoder, train
from sigad.models.fitting import mirrored
from sigad.models.saved import restore


def images(n=48):
    y, x = np.mgrid[:16, :16] / 16
    phases = np.random.default_rng(0).uniform(0, 6, (n, 1, 1, 1))
    return torch.from_numpy(np.sin(6 * x + phases) + y).float()


def test_it_learns_resumes_and_is_saved(tmp_path):
    settings = {"seed": 1, "widths": (8, 16), "code": 4, "batch_size": 16}
    whole, curve = train(images(), epochs=12, **settings)
    assert curve[-1].loss < 0.6 * curve[0].loss
    train(images(), epochs=5, checkpoint=tmp_path / "state.pt", **settings)
    resumed, again = train(images(), epochs=12, checkpoint=tmp_path / "state.pt", **settings)
    assert [e[:2] for e in again] == [e[:2] for e in curve]
    resumed.save_pretrained(tmp_path / "saved")
    loaded = restore(Autoencoder, tmp_path / "saved")
    with torch.no_grad():
        torch.testing.assert_close(loaded(images()), whole(images()))


def test_the_test_takes_it():
    network, _ = train(images(), seed=1, epochs=5, widths=(8, 16), code=4)
    x = images()[0].numpy() + 0.3 * np.random.default_rng(1).standard_normal((1, 16, 16))
    x[0, 4:9, 4:9] += 2
    result = localization_test(network, x, images()[1], threshold=1.0, covariance=0.09)
    assert result.status == "tested" and 0 <= result.p_low <= result.p_high <= 1


def test_mirrored_images_and_mistakes():
    some = images(3)
    both = mirrored(some)
    assert len(both) == 6 and torch.equal(both[3:], some.flip(-1)) and torch.equal(both[:3], some)
    with pytest.raises(InvalidInputError, match=r"\(N, C, H, W\)"):
        train(some[0], seed=0)
    with pytest.raises(InvalidInputError, match="divisible by 8, not 12 x 16"):
        train(torch.zeros(4, 1, 12, 16), seed=0, epochs=1)
    with pytest.raises(ConfigurationError, match="widths"):
        Autoencoder(widths=())
