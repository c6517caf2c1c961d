"""Many hypotheses at once: adjusted p-values, and e-values of truncated statistics.

Every function adjusts along the last axis and returns *adjusted* values: reject at level alpha where they are <= alpha.
What was not detected (NaN) counts as a p-value of 1, or an e-value of 0, and counts among the m hypotheses: a selective
p-value is valid given detection, so that "p, and 1 where nothing was detected" is valid without that condition, for
each of all m. Correcting over the detected ones alone has no such guarantee when the detections depend on each other.

============================  ================================  ====================================================
:func:`holm`                  family-wise error rate            any dependence
:func:`benjamini_yekutieli`   false discovery rate              any dependence
:func:`e_benjamini_hochberg`  false discovery rate              any dependence, from e-values
:func:`benjamini_hochberg`    false discovery rate              independent, or positively dependent (PRDS) p-values,
                                                                such as conformal ones that share their calibration
============================  ================================  ====================================================
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.checks import real_array, real_number
from sigad.errors import InvalidInputError
from sigad.inference import region as rg
from sigad.inference.truncated import Null, log_mass


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values (..., m) of Holm (1979): control the family-wise error rate under any dependence."""
    p = _p_values(p_values)
    m = p.shape[-1]
    order = np.argsort(p, axis=-1, kind="stable")
    stepped = np.take_along_axis(p, order, -1) * np.arange(m, 0, -1)
    return _unsorted(np.minimum(np.maximum.accumulate(stepped, axis=-1), 1.0), order)


def benjamini_yekutieli(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values (..., m) of Benjamini & Yekutieli (2001): control the false discovery rate, any dependence."""
    return _false_discovery(p_values, "by")


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values (..., m) of Benjamini & Hochberg (1995).

    They control the false discovery rate of p-values that are independent, or positively dependent (PRDS): conformal
    p-values with one calibration set are (Bates et al. 2023). Selective p-values of overlapping patches, or of patches
    with neighbours in common, need not be: use :func:`benjamini_yekutieli`.
    """
    return _false_discovery(p_values, "bh")


def e_benjamini_hochberg(e_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted values (..., m) of e-BH (Wang & Ramdas 2022): control the false discovery rate under any dependence.

    ``e_values`` (..., m): nonnegative, of mean at most 1 under their null hypothesis; NaN counts as 0.
    """
    e = real_array(e_values, "e_values", infinite=True, missing=True)
    e = np.where(np.isnan(e), 0.0, e)
    if e.ndim == 0 or not (e >= 0).all():
        raise InvalidInputError("e-values must have shape (..., m) and must not be negative")
    m = e.shape[-1]
    order = np.argsort(-e, axis=-1, kind="stable")
    with np.errstate(divide="ignore", over="ignore"):
        stepped = m / (np.arange(1, m + 1) * np.take_along_axis(e, order, -1))
    smallest = np.minimum.accumulate(stepped[..., ::-1], axis=-1)[..., ::-1]
    return _unsorted(np.minimum(smallest, 1.0), order)


def truncated_e_value(
    statistic: ArrayLike,
    region: ArrayLike,
    *,
    scale: float,
    null: Null = "normal",
    searched: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """E-value of a truncated statistic: the likelihood ratio of a stated alternative to the null, given the selection.

    Alternative: the signal itself is normal with ``scale^2 - 1`` times the covariance of the noise. The statistic then
    has the null's law times ``scale``, truncated to the same region Z, and with the null's density f

        e = [f(T / scale) / scale / P(scale N in Z)] / [f(T) / P(N in Z)],    E[e | T in Z] = 1 under the null

    exactly. The alternative need not be true for that; it says against which signals e grows. It must be fixed before
    looking at the data.

    Parameters
    ----------
    statistic : (...,) observed statistics, each in its region.
    region : (..., m, 2) truncation regions.
    scale : of the alternative, greater than 1. A signal of s standard deviations has its largest e-value near
        scale = s for ``"normal"``, and near sqrt(1 + s^2 / df) for ``("chi", df)``.
    null : ``"normal"`` or ``("chi", df)``.
    searched : (..., k, 2) the part of the line that has been searched. What lies outside counts against the e-value,
        E[e] <= 1: the alternative has more probability there than the null, so search exhaustively.

    Raises
    ------
    InvalidInputError
        for another null, a scale that is not greater than 1, or a statistic outside its region.
    """
    statistic, region = real_array(statistic, "statistic"), real_array(region, "region", infinite=True)
    scale = real_number(scale, "scale")
    if null != "normal" and (not isinstance(null, tuple) or null[0] != "chi"):
        raise InvalidInputError(f'null must be "normal" or ("chi", df) for a signal of this alternative, not {null!r}')
    if not scale > 1:
        raise InvalidInputError(f"scale must be greater than 1, not {scale}")
    if region.ndim < 2 or region.shape[-1] != 2:
        raise InvalidInputError(f"region must have shape (..., m, 2), not {region.shape}")
    if not rg.contains(region, statistic).all():
        raise InvalidInputError("the truncation region must contain the observed statistic")
    df = 1.0 if null == "normal" else real_number(null[1], "degrees of freedom of the chi law")
    log_ratio = statistic**2 / 2 * (1 - scale**-2) - df * np.log(scale)
    possible = region
    if searched is not None:
        unknown = rg.complement(real_array(searched, "searched", infinite=True))
        possible = rg.union(region, np.broadcast_to(unknown, (*region.shape[:-2], *unknown.shape[-2:])))
    return np.exp(log_ratio + _log_probability(region, null) - _log_probability(possible / scale, null))


def _log_probability(region: NDArray, null: Null) -> NDArray[np.float64]:
    masses = log_mass(region[..., 0], region[..., 1], null)
    return np.logaddexp.reduce(masses, axis=-1)


def _p_values(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values (..., m), with 1 for NaN."""
    p = real_array(p_values, "p_values", missing=True)
    p = np.where(np.isnan(p), 1.0, p)
    if p.ndim == 0 or not ((p >= 0) & (p <= 1)).all():
        raise InvalidInputError("p-values must have shape (..., m) and lie in [0, 1]; NaN where nothing was detected")
    return p


def _false_discovery(p_values: ArrayLike, method: str) -> NDArray[np.float64]:
    p = _p_values(p_values)
    if not p.shape[-1]:
        return p
    from scipy import stats  # slow to import

    return stats.false_discovery_control(p, axis=-1, method=method)


def _unsorted(values: NDArray, order: NDArray) -> NDArray:
    result = np.empty_like(values)
    np.put_along_axis(result, order, values, -1)
    return result
