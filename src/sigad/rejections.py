"""How often does a test reject normal instances, and may its p-values be trusted? From p-values of normal instances."""

from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.checks import labels, real_array, real_number, share
from sigad.errors import InvalidInputError
from sigad.optional import needs

Verdict = Literal["holds", "undecided", "refused"]


@dataclass(frozen=True)
class Rejections:
    """What :func:`judge` found.

    Attributes
    ----------
    verdict : ``"holds"``, ``"undecided"`` (too few detected normals to tell) or ``"refused"``.
    n_normals : instances given.
    n_detected, n_rejected : of these, by the test; of groups, how many have a detected instance, and the rejected of
        the one that was drawn from each.
    type1, type1_low, type1_high : share of the detected normals that the test rejects at level alpha, with its exact
        (Clopper-Pearson) 95 % interval; NaN and [0, 1] where none was detected.
    alpha, refusal : level of the test, and the rate that must not be exceeded.
    p_values : (n_normals,), NaN where nothing was detected; empty without a test.
    """

    verdict: Verdict
    n_normals: int
    n_detected: int
    n_rejected: int
    type1: float
    type1_low: float
    type1_high: float
    alpha: float
    refusal: float
    p_values: NDArray[np.float64] = field(repr=False)

    @property
    def words(self) -> str:
        """The verdict and its reasons in sentences."""
        reason = {
            "refused": "more than it may: do not use its p-values here. Conformal p-values hold whatever the noise is.",
            "undecided": f"too few to exclude a rate above {self.refusal:g}: give more normals.",
            "holds": f"which excludes a rate above {self.refusal:g}.",
        }[self.verdict]
        return (
            f"Of {self.n_detected} detected normals the test rejects {self.n_rejected} at level {self.alpha:g} "
            f"(95 % interval {self.type1_low:.3f} to {self.type1_high:.3f}), {reason}"
        )

    def __str__(self) -> str:
        return f"{self.verdict}. {self.words}"

    def to_frame(self):
        """One row of a pandas DataFrame: every number, not the arrays."""
        with needs("pipeline"):
            import pandas as pd

        return pd.DataFrame([{k: v for k, v in asdict(self).items() if not isinstance(v, np.ndarray)}])


def judge(
    p_values: ArrayLike, *, groups: ArrayLike | None = None, alpha: float = 0.05, refusal: float | None = None
) -> Rejections:
    """A verdict on a test, from its p-values of normal instances, and the rate at which it rejects them.

    The verdict is ``"refused"`` where the interval of the rate lies above alpha: the test is shown to be invalid on
    these data. It ``"holds"`` where the interval excludes rates above ``refusal``.

    Parameters
    ----------
    p_values : (m,) of normal instances that the test has not seen, NaN where nothing was detected; for instance
        :meth:`sigad.knn.NormalModel.out_of_fold`.
    groups : (m,) labels (whole numbers or text) that say whose each p-value is: patients, images, lots. Instances of a
        group may depend on one another, groups may not: of each group one detected instance, drawn at random (the same
        one each time), is counted, which keeps the interval exact. All groups then count alike.
    alpha : level of the test.
    refusal : the rate that must be excluded for ``"holds"``, at least alpha; twice alpha by default.

    Raises
    ------
    InvalidInputError
        for p-values outside [0, 1], groups that do not fit them, and levels that are none.
    """
    alpha = share(alpha, "alpha")
    refusal = min(2 * alpha, 1.0) if refusal is None else real_number(refusal, "refusal")
    if not alpha <= refusal <= 1:
        raise InvalidInputError(f"refusal must lie between alpha = {alpha:g} and 1, not {refusal:g}")
    p = real_array(p_values, "p_values", missing=True)
    if p.ndim != 1 or ((p < 0) | (p > 1)).any():
        raise InvalidInputError("p_values must have shape (m,), and lie in [0, 1] or be NaN")
    from scipy import stats  # slow to import

    found = p[~np.isnan(p)] if groups is None else p[_one_of_each(groups, ~np.isnan(p))]
    rejected = int((found <= alpha).sum())
    low, high = stats.binomtest(rejected, len(found)).proportion_ci(0.95, "exact") if len(found) else (0.0, 1.0)
    return Rejections(
        verdict="refused" if low > alpha else "holds" if high <= refusal else "undecided",
        n_normals=len(p),
        n_detected=len(found),
        n_rejected=rejected,
        type1=rejected / len(found) if len(found) else float("nan"),
        type1_low=float(low),
        type1_high=float(high),
        alpha=alpha,
        refusal=refusal,
        p_values=p,
    )


def _one_of_each(groups: ArrayLike, detected: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The place of one detected instance of each group that has any."""
    of = labels(groups, "groups", len(detected))
    places = np.random.default_rng(0).permutation(np.flatnonzero(detected))
    return places[np.unique(of[places], return_index=True)[1]]
