"""Draw docs/figures/lattice_validity.png: p-values of true null hypotheses by searches that are valid and by some that
only look so. Beside it a CSV file with the numbers. Takes a minute on one core."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

from sigad.inference import region as rg
from sigad.inference.hypothesis import Hypothesis
from sigad.inference.lattice import Refinement, lattice
from sigad.inference.truncated import log_density, truncated_pvalue

HERE = Path(__file__).parent
SPACING, FINER = 0.25, 16
REGION = rg.as_region([[c, c + w] for c, w in zip(np.arange(-4.05, 4, 0.45), 19 * [0.05, 0.03, 0.12], strict=False)])
"""Intervals narrower than the gaps between them: what a threshold on many pixels leaves of a line."""


class InRegion(Hypothesis):
    null = "normal"

    def __init__(self, statistic: float):
        self.statistic = statistic

    def same(self, z):
        return rg.contains(REGION, z)


def grid(t: float, spacing: float) -> np.ndarray:
    return t + spacing * np.arange(-np.ceil(6 / spacing), np.ceil(6 / spacing) + 1)


def weighted(t: float, z: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> float:
    """Two-sided p-value of points in the region that stand for parts of the line of these lengths; randomised, as that
    of the lattice is, so that it is not the observed point's own weight that is seen."""
    weights = np.where(rg.contains(REGION, z), np.exp(log_density(z)) * lengths, 0.0)
    own = np.abs(z - t) < 1e-12
    return float((weights[(np.abs(z) > abs(t)) & ~own].sum() + rng.uniform() * weights[own].sum()) / weights.sum())


def randomised(t: float, rng: np.random.Generator) -> float:
    return lattice(InRegion(t), spacing=SPACING, rng=rng).p_value


def refined(t: float, rng: np.random.Generator) -> float:
    refinement = Refinement(levels=4, points=20)
    return lattice(InRegion(t), spacing=SPACING, refinement=refinement, rng=rng).p_value


def bisected(t: float, rng: np.random.Generator) -> float:
    """The intervals that hold a point of the grid anchored at T, up to their exact ends, which bisection finds."""
    z = grid(t, SPACING)
    found = REGION[((REGION[:, :1] <= z) & (z <= REGION[:, 1:])).any(1)]
    return float(truncated_pvalue(t, found))


def refined_around(t: float, rng: np.random.Generator) -> float:
    """The spacing around T is FINER times smaller."""
    coarse, fine = grid(t, SPACING), t + SPACING / FINER * np.arange(-FINER // 2 + 1, FINER // 2)
    coarse = coarse[np.abs(coarse - t) > SPACING / 2]
    lengths = np.concatenate([np.full(len(coarse), SPACING), np.full(len(fine), SPACING / FINER)])
    return weighted(t, np.concatenate([coarse, fine]), lengths, rng)


def observed_width(t: float, rng: np.random.Generator) -> float:
    """The spacing is the width of the interval that holds T."""
    z = grid(t, float(rg.length(rg.component(REGION, t))))
    return weighted(t, z, np.ones(len(z)), rng)


METHODS: dict[str, Callable[[float, np.random.Generator], float]] = {
    "lattice": randomised,
    "lattice refined": refined,
    "invalid: grid at T with ends bisected": bisected,
    "invalid: refined around T only": refined_around,
    "invalid: spacing from T's interval": observed_width,
}


def simulate(trials: int, seed: int = 1) -> pd.DataFrame:
    """Two-sided p-values (trials rows, a column for each method) of statistics drawn from the truncated law."""
    rng = np.random.default_rng(seed)
    draws = rng.standard_normal(40 * trials)
    draws = draws[rg.contains(REGION, draws)][:trials]
    return pd.DataFrame({name: [method(t, rng) for t in draws] for name, method in METHODS.items()})


def summary(p_values: pd.DataFrame) -> pd.DataFrame:
    tests = {name: stats.kstest(p, "uniform") for name, p in p_values.items()}
    more = {name: stats.kstest(p, "uniform", alternative="greater") for name, p in p_values.items()}
    return pd.DataFrame(
        {
            "trials": len(p_values),
            "rejected_at_0.05": (p_values <= 0.05).mean(),
            "rejected_at_0.01": (p_values <= 0.01).mean(),
            "ks_distance": {name: test.statistic for name, test in tests.items()},
            "ks_p": {name: test.pvalue for name, test in tests.items()},
            # More small p-values than a valid test may have: the largest excess over alpha, at any alpha.
            "excess": {name: test.statistic for name, test in more.items()},
            "excess_p": {name: test.pvalue for name, test in more.items()},
        }
    )


def main() -> None:
    p_values = simulate(6000)
    table = summary(p_values)
    table.to_csv(HERE / "lattice_validity.csv", float_format="%.4g", index_label="method")
    figure, axes = plt.subplots(figsize=(5.5, 4.2), layout="constrained")
    uniform = (np.arange(len(p_values)) + 0.5) / len(p_values)
    for name, style in zip(METHODS, ("-", "--", "-.", ":", (0, (5, 1))), strict=True):
        axes.plot(uniform, np.sort(p_values[name]), linestyle=style, label=name, linewidth=1.6)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.6)
    axes.set(xlabel="uniform quantile", ylabel="p-value", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(HERE / "lattice_validity.png", dpi=150)


if __name__ == "__main__":
    main()
