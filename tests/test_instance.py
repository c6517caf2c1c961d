"""The selective test of flagged instances."""

import numpy as np
import pytest
import torch
from scipy import stats

from sigad import Lattice, instance_test
from sigad.errors import DetectorError, InvalidInputError, NumericalError
from sigad.inference.truncated import truncated_pvalue

D, FINE = 4, Lattice(spacing=2e-3, batch=10**6)


def data(seed, shift=0.0, n=12):
    rng = np.random.default_rng(seed)
    x, references = rng.standard_normal(D), rng.standard_normal((n, D))
    x[0] += shift
    return x, references


def far(batch):
    """Far from the origin: a detector that was fitted on other data."""
    return np.square(batch).sum(-1) > 5.0


def test_against_fixed_references_in_closed_form():
    """Flagged where |x(s)|^2 is large, a quadratic of s."""
    tested = 0
    for seed in range(30):
        x, references = data(seed, shift=1.5)
        result = instance_test(x, references, detect=far, covariance=2.0, engine=FINE)
        if not far(x):
            assert result.status == "not_selected" and np.isnan(result.p_value)
            continue
        tested += 1
        e, v = x - references.mean(0), 1 + 1 / 12
        t = np.linalg.norm(e) / np.sqrt(2.0 * v)
        assert result.statistic == pytest.approx(t) and result.selection == (True, tuple(range(12)))
        np.testing.assert_allclose(result.difference, e)
        roots = np.roots([e @ e / v**2, 2 * x @ e / v, x @ x - 5.0])
        if np.isreal(roots).all():
            low, high = np.sort(t * (1 + roots.real))
            region = [[0.0, max(low, 0.0)], [max(high, 0.0), np.inf]]
        else:
            region = [[0.0, np.inf]]
        expected = float(truncated_pvalue(t, np.array(region), null=("chi", D)))
        assert result.p_value == pytest.approx(expected, abs=5e-3)
    assert tested > 10


def brute_force_same(x, references, inside, z, t, nearest, flags):
    """The line written down again, one point at a time."""
    m = inside.sum()
    e, v = x - references[inside].mean(0), 1 + 1 / m
    at, moved = x + (z / t - 1) * e / v, references.copy()
    moved[inside] -= (z / t - 1) * e / (m * v)
    order = np.argsort(((at - moved) ** 2).sum(1), kind="stable")[:m]
    kept = not nearest or set(order) == set(np.flatnonzero(inside))
    return bool(flags(at, moved)) and kept, at, moved


@pytest.mark.parametrize("nearest", [None, 3, 12])
@pytest.mark.parametrize("refit", [False, True])
def test_the_line_and_the_selection(nearest, refit):
    x, references = data(5, shift=4.0)

    def fit(normal):
        centre, scale = normal.mean(0), normal.std(0)
        return lambda batch: np.square((batch - centre) / scale).sum(1) > 4.0

    given = {"fit": fit} if refit else {"detect": far}
    result = instance_test(x, references, covariance=1.0, nearest=nearest, engine=Lattice(spacing=0.1), **given)
    flags = (lambda at, moved: fit(moved)(at[None])[0]) if refit else (lambda at, moved: far(at))
    inside = np.isin(np.arange(12), result.selection.indices)
    assert inside.sum() == (nearest or 12)
    low, high = result.region[0, 0], result.region[-1, 0]
    grid = result.statistic + 0.1 * np.arange(-40, 40)
    for z in grid[(grid > max(low - 0.35, 0)) & (grid < high + 0.35) & (grid < 5)]:
        same, at, moved = brute_force_same(x, references, inside, z, result.statistic, nearest is not None, flags)
        assert same == (np.abs(result.region[:, 0] - z) < 1e-9).any()
        # The statistic of the data at z is z, and the part that the line leaves alone is the same everywhere.
        m = inside.sum()
        assert np.linalg.norm(at - moved[inside].mean(0)) / np.sqrt(1 + 1 / m) == pytest.approx(z)
        np.testing.assert_allclose(at + moved[inside].sum(0), x + references[inside].sum(0))


@pytest.mark.parametrize(("nearest", "refit"), [(None, False), (3, False), (3, True)])
def test_uniform_under_the_null_hypothesis(nearest, refit):
    """KS, fixed seeds, error probability 1e-3 each. The fitted detector sees the references that move."""

    def fit(normal):
        centre = normal.mean(0)
        return lambda batch: np.abs(batch - centre).max(1) > 1.2

    rng, p = np.random.default_rng(9), []
    given = {"fit": fit} if refit else {"detect": far}
    for seed in range(500):
        x, references = data(1000 + seed)
        engine = Lattice(spacing=0.1, rng=rng)
        result = instance_test(x, references, covariance=1.0, nearest=nearest, engine=engine, **given)
        p += [result.p_value] if result.status == "tested" else []
    assert len(p) > 100 and stats.kstest(p, "uniform").pvalue > 1e-3


def test_images_in_torch():
    generator = torch.Generator().manual_seed(0)
    x, references = torch.randn(3, 4, generator=generator), torch.randn(5, 3, 4, generator=generator)
    x += 2

    def detect(batch):
        assert batch.dtype == torch.float32 and batch.shape[1:] == (3, 4)
        return batch.mean((1, 2)) > 1

    result = instance_test(x, references, detect=detect, covariance=np.full(12, 1.0))
    assert result.status == "tested" and result.p_value < 0.2 and result.difference.shape == (3, 4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"detect": None}, InvalidInputError, "either"),
        ({"fit": lambda normal: far}, InvalidInputError, "either"),
        ({"references": np.zeros((3, D + 1))}, InvalidInputError, "references"),
        ({"references": np.zeros((0, D))}, InvalidInputError, "references"),
        ({"nearest": 13}, InvalidInputError, "nearest"),
        ({"nearest": 0}, InvalidInputError, "nearest"),
        ({"covariance": 0.0}, InvalidInputError, "positive"),
        ({"detect": lambda batch: np.square(batch).sum(1)}, DetectorError, "bool"),
        ({"detect": lambda batch: batch > 0}, DetectorError, "bool"),
        ({"detect": None, "fit": lambda normal: normal.nothing}, DetectorError, "fitting"),
        ({"detect": None, "fit": lambda normal: None}, InvalidInputError, "function of a batch, not NoneType"),
        ({"memory_budget": -1}, InvalidInputError, "memory_budget"),
        ({"detect": lambda batch: np.random.rand(len(batch)) > 0.5}, DetectorError, "random"),  # noqa: NPY002
    ],
)
def test_errors(change, error, message):
    x, references = data(0, shift=3.0)
    given = {"x": x, "references": references, "detect": far, "covariance": 1.0} | change
    with pytest.raises(error, match=message):
        instance_test(given.pop("x"), given.pop("references"), **given)


@pytest.mark.parametrize("nearest", [None, 3])
def test_copies_of_what_is_compared_have_no_p_value(nearest):
    # A mean of copies has a larger variance than one of independent instances.
    x, references = data(0, shift=3.0)
    given = {"detect": far, "covariance": 1.0, "nearest": nearest}
    chosen = instance_test(x, references, **given).selection.indices
    last = next(i for i in reversed(range(len(references))) if i != chosen[0])
    for copied in (x, references[chosen[0]]):
        spoilt = references.copy()
        spoilt[last] = copied
        with pytest.raises(NumericalError, match="copy"):
            instance_test(x, spoilt, **given)
