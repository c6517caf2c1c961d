"""The selective test for any detector, and what it refuses."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from sigad import Lattice, selective_test
from sigad.errors import DetectorError, InvalidInputError, NumericalError
from sigad.inference.covariance import AutoregressiveCovariance
from sigad.inference.estimated import EstimatedScale
from sigad.inference.result import Tolerance
from sigad.inference.truncated import truncated_pvalue


def largest(batch):
    """Selects the largest number of each vector."""
    return batch.argmax(1)


def one_hot(size):
    return lambda selection: np.eye(size)[selection]


def test_the_largest_of_some_numbers():
    """In closed form: given that it is the largest, it exceeds the second."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.standard_normal(6)
        result = selective_test(x, largest, one_hot(6), covariance=1.0, engine=Lattice(spacing=1e-3, batch=10**6))
        region = [[np.sort(x)[-2], np.inf]]
        assert result.p_value == pytest.approx(float(truncated_pvalue(x.max(), region)), abs=2e-3)
        assert result.statistic == result.effect == x.max() and result.selection == x.argmax()
        low, high = result.confidence_interval
        assert low < x.max() < high or high == pytest.approx(x.max(), abs=1.0)


def test_uniform_under_the_null_hypothesis():
    """Correlated noise, softmax and sorting; KS with a fixed seed, error probability 1e-3."""
    covariance = AutoregressiveCovariance(0.6, 2.0)
    noise = np.random.default_rng(3).standard_normal((400, 8))

    def detect(batch):
        return np.sort(np.argsort(batch @ np.tri(8), axis=1)[:, -2:], axis=1)

    def contrast(selection):
        weights = np.full(8, -1 / 6)
        weights[selection] = 0.5
        return weights

    rng = np.random.default_rng(4)
    p = [
        selective_test(x, detect, contrast, covariance=covariance, engine=Lattice(spacing=0.1, rng=rng)).p_value
        for x in covariance.color(noise)
    ]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


class Attention(nn.Module):
    """Nothing of it is piecewise linear; its mask is where it looks most."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.attention = nn.GroupNorm(1, 4), nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        y = self.norm(x.mT).mT
        _, weights = self.attention(y, y, y)
        return weights.mean(1) > 1 / 6 + 0.005


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_torch_detector_sees_tensors_of_the_kind_of_the_data(dtype):
    detector = Attention().to(dtype).eval()
    kinds = []

    def detect(batch):
        kinds.append((batch.dtype, batch.requires_grad))
        return detector(batch)

    def contrast(selection):
        weights = np.zeros((6, 4))
        weights[selection] = 1 / (4 * selection.sum())
        return weights if selection.any() else None

    x = torch.randn(6, 4, dtype=dtype, generator=torch.Generator().manual_seed(1))
    x[2] += 3
    result = selective_test(x, detect, contrast, covariance=1.0)
    assert result.status == "tested" and 0 < result.p_value < 1 and result.n_evaluations > 20
    assert set(kinds) == {(dtype, False)}
    again = selective_test(x, detect, contrast, covariance=1.0, memory_budget=64 * 8 * 24 * 3)
    assert again.p_value == pytest.approx(result.p_value, rel=1e-6)


def test_running_out_of_memory_makes_batches_smaller():
    sizes = []

    def detect(batch):
        sizes.append(len(batch))
        if len(batch) > 10:
            raise torch.OutOfMemoryError("out of memory")
        return batch > 0

    result = selective_test(np.array([1.0, -1.0]), detect, np.array([1.0, 0.0]), covariance=1.0)
    assert result.status == "tested" and max(sizes[-10:]) <= 10 and 128 in sizes


def test_nothing_detected_is_no_test():
    result = selective_test(np.zeros(3), lambda batch: batch > 9, lambda mask: None, covariance=1.0)
    assert result.status == "not_selected" and np.isnan(result.p_value) and not result.selection.any()


def test_a_contrast_that_does_not_depend_on_the_selection():
    x = np.array([0.5, 2.0])
    result = selective_test(x, lambda b: b[:, 1] > 1, [0.0, 1.0], covariance=4.0, alternative="greater")
    assert result.statistic == 1.0
    fine = float(truncated_pvalue(1.0, [[0.5, np.inf]], alternative="greater"))
    assert fine < result.p_value < fine + 0.04 and 0.03 < result.own_weight < 0.05


def moved(batch):
    return batch - batch.mean(0) > 0.3


def drawn(batch):
    return batch + np.random.default_rng().standard_normal(batch.shape) > 0


def globally(batch):
    return batch + 1e-9 * np.random.standard_normal(batch.shape) > 0  # noqa: NPY002


def with_torch(batch):
    return batch + 1e-9 * torch.randn(batch.shape).numpy() > 0


def failing(batch):
    if (batch > 1.5).any():
        raise FloatingPointError("too bright")
    return batch > 0


def ragged(batch):
    return np.array([np.flatnonzero(row > 0) for row in batch], dtype=object)


def how_many(batch):
    """The shape depends on the data."""
    return np.ones((len(batch), int((batch > 0).sum(1).min())))


@pytest.mark.parametrize(
    ("detect", "error", "message"),
    [
        (moved, NumericalError, "independent of what else is in the batch"),
        (drawn, (DetectorError, NumericalError), "random|deterministic"),
        (globally, DetectorError, "global generator"),
        (with_torch, DetectorError, "global generator"),
        (failing, DetectorError, "FloatingPointError: too bright"),
        (ragged, DetectorError, "one shape"),
        (how_many, DetectorError, "shape"),
        (lambda batch: np.where(batch < 0, np.nan, batch), DetectorError, "NaN"),
        (lambda batch: batch[0] > 0, DetectorError, "one selection for each"),
        (lambda batch: True, DetectorError, "one selection for each"),
        (lambda batch: batch.nothing(), DetectorError, "AttributeError"),
        (lambda batch: (batch > 0).astype("U5" if len(batch) > 1 else float), DetectorError, "type"),
    ],
)
def test_detectors_that_are_refused(detect, error, message):
    with pytest.raises(error, match=message):
        selective_test(np.array([1.0, -0.5, 0.7]), detect, np.array([1.0, 0.0, 0.0]), covariance=1.0)


def test_seeded_randomness_is_allowed():
    def detect(batch):
        torch.manual_seed(0)
        return batch + torch.randn(batch.shape[1:]).numpy() > 0

    assert selective_test(np.array([1.0, 2.0]), detect, np.array([1.0, 0.0]), covariance=1.0).status == "tested"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.array([np.nan, 1.0])}, "x must be finite"),
        ({"x": None}, "x must be given"),
        ({"detect": "iforest"}, "function of a batch, not str"),
        ({"contrast": np.zeros(2)}, "no variance"),
        ({"contrast": np.ones(3)}, "the same"),
        ({"contrast": None}, "contrast must be"),
        ({"contrast": lambda mask: mask.nothing}, "AttributeError"),
        ({"covariance": -1.0}, "positive"),
        ({"covariance": np.ones(3)}, "covariance"),
        ({"engine": "exact"}, "engine"),
        ({"level": 1.0}, "level"),
        ({"memory_budget": "1GB"}, "memory_budget"),
        ({"memory_budget": 0}, "memory_budget"),
    ],
)
def test_bad_arguments(change, message):
    given = {"detect": lambda batch: batch > 0, "contrast": np.array([1.0, 0.0]), "covariance": 1.0} | change
    with pytest.raises(InvalidInputError, match=message):
        selective_test(given.pop("x", np.array([1.0, 2.0])), **given)


def test_a_scale_that_was_estimated():
    """Exact all the same: KS of the randomised p-values, fixed seed, error probability 1e-3; a plug-in fails it."""
    rng = np.random.default_rng(6)
    exact, plugged_in = [], []
    for _ in range(600):
        x, others = 3.0 * rng.standard_normal(5), 3.0 * rng.standard_normal(4)
        scale = EstimatedScale(1.0, sum_of_squares=np.square(others).sum(), degrees_of_freedom=4)
        for p, covariance in ((exact, scale), (plugged_in, float(scale.variance))):
            engine = Lattice(spacing=0.1, rng=rng)
            p.append(selective_test(x, largest, one_hot(5), covariance=covariance, engine=engine).p_value)
    assert stats.kstest(exact, "uniform").pvalue > 1e-3 > stats.kstest(plugged_in, "uniform").pvalue


def test_it_prints_what_it_found():
    result = selective_test(np.array([0.5, 2.0]), lambda b: b[:, 1] > 1, [0.0, 1.0], covariance=4.0)
    assert "53 lattice points" in repr(result) and "own weight 0.0405" in repr(result)
    assert result.to_frame()["own_weight"][0] == result.own_weight


def test_the_engine_is_called_with_its_settings():
    x, detect, weights = np.array([0.5, 2.0]), lambda batch: batch > 0.4, np.array([1.0, 0.0])
    results = [
        selective_test(x, detect, weights, covariance=1.0, engine=engine, tolerance=Tolerance(0.0, 0.0))
        for engine in (Lattice(spacing=0.01), Lattice(spacing=0.01, cell=0.25), Lattice(rng=np.random.default_rng(0)))
    ]
    assert len({result.p_value for result in results}) == 3
    assert len(results[1].region) == 25 and results[0].own_weight < 0.02
