"""Conformal p-values: of a score among the scores of normal instances. No noise model, and none of the data's law.

All that is assumed is that a normal instance under test and the calibration instances are exchangeable (for weights:
weighted exchangeable), with the detector and the score fixed without any of them. The null hypothesis is therefore "the
instance is one of the normals", not "the signals agree", as for a selective p-value. docs/which-p-value.md compares
the claims.

* :func:`detection_conditional` is valid *given that the instance was detected*. With selective p-values in place of
  scores (``extreme="small"``) it is the conformalised selective test: ranked as the selective test ranks, and valid
  whatever the noise is.
* :func:`unconditional` counts every instance that is inspected: P(p <= a) <= a over detected and undetected normals
  together, the rate of false alarms per inspected normal part.

Slices of one patient, or patches of one image, depend on one another: then it is the patients that are exchangeable,
and ``calibration_groups`` says whose score each is.

Source: Vovk, Gammerman & Shafer (2005), chapter 2; Tibshirani, Barber, Candes & Ramdas (2019) for the weights; Lee,
Barber & Willett (2023), section 3, for groups; Bates, Candes, Lei, Romano & Sesia (2023) for outliers.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigad.checks import generator, labels, real_array
from sigad.errors import InvalidInputError

Extreme = Literal["large", "small"]


@dataclass(frozen=True)
class ConformalPValues:
    """Conformal p-values, and how small they could have been.

    Attributes
    ----------
    p_value : (...,); NaN where nothing was detected, for p-values given detection.
    smallest : (...,) the smallest p-value that these calibration scores allow: 1 / (m + 1) without weights. No level
        below it can ever reject: it needs more calibration scores.
    n_calibration : (...,) how many calibration scores were counted (m): for p-values given detection the detected ones.
        With groups, how many of them have such a score.
    """

    p_value: NDArray[np.float64]
    smallest: NDArray[np.float64]
    n_calibration: NDArray[np.int64]


def detection_conditional(
    scores: ArrayLike,
    calibration: ArrayLike,
    *,
    detected: ArrayLike | None = None,
    calibration_detected: ArrayLike | None = None,
    extreme: Extreme = "large",
    weights: ArrayLike | None = None,
    calibration_weights: ArrayLike | None = None,
    calibration_groups: ArrayLike | None = None,
    rng: np.random.Generator | None = None,
) -> ConformalPValues:
    """Conformal p-values given detection: (1 + #{detected calibration normals as extreme}) / (1 + #{detected}).

    For a normal instance, P(p <= a | it was detected) <= a, whatever the scores' law: given which of the normals were
    detected, the scores of these are exchangeable.

    Parameters
    ----------
    scores : (...,) scores of the instances under test.
    calibration : (m,) scores of normal instances that neither detector nor score has seen, or (..., m) for each test
        its own.
    detected, calibration_detected : (...,) and (m,) or (..., m) of bool, what the detector decided; all, if omitted.
        Scores of what was not detected are not looked at and may be NaN.
    extreme : ``"large"`` scores, or ``"small"`` ones: p-values in the place of scores.
    weights, calibration_weights : (...,) and (m,) or (..., m), positive up to a common factor: the ratio of the density
        of the covariates in use to that in calibration, for a known covariate shift. Both or neither.
    calibration_groups : (m,) labels (whole numbers or text) that say whose each calibration score is: patients, images,
        lots. All groups count alike, each score by its share in its group. P(p <= a) <= a then for a detected normal
        instance drawn from those of a *new* group, exchangeable with these, however many instances groups have and
        however these depend on one another. Not together with weights.
    rng : counts ties and the instance itself by a uniform share from this generator: p is then exactly uniform, and
        ``smallest`` is 0. Without it, ties count in full.

    Raises
    ------
    InvalidInputError
        for NaN among what was detected, shapes that do not fit, weights that are not positive, or weights with groups.
    """
    weighted = weights, calibration_weights, calibration_groups
    given = _Given.of(scores, calibration, detected, calibration_detected, extreme, *weighted, rng)
    which = given.calibration_detected
    result = given.p_values(which, rng)
    return ConformalPValues(np.where(given.detected, result, np.nan), given.smallest(which, rng), given.count(which))


def unconditional(
    scores: ArrayLike,
    calibration: ArrayLike,
    *,
    detected: ArrayLike | None = None,
    calibration_detected: ArrayLike | None = None,
    extreme: Extreme = "large",
    weights: ArrayLike | None = None,
    calibration_weights: ArrayLike | None = None,
    calibration_groups: ArrayLike | None = None,
    rng: np.random.Generator | None = None,
) -> ConformalPValues:
    """Conformal p-values per inspected instance: undetected calibration normals count as never as extreme.

    p = (1 + #{detected calibration normals as extreme}) / (1 + m), and 1 where the instance was not detected. For a
    normal instance P(p <= a) <= a over all that are inspected: an alarm at p <= 0.001 is at most one in 1,000 normal
    parts. It says nothing about the share of false alarms among detections: that is :func:`detection_conditional`.

    Parameters and errors as in :func:`detection_conditional`; ``rng`` leaves the p-value of what was not detected at 1.
    """
    weighted = weights, calibration_weights, calibration_groups
    given = _Given.of(scores, calibration, detected, calibration_detected, extreme, *weighted, rng)
    everything = np.ones_like(given.calibration_detected)
    result = given.p_values(everything, rng)
    return ConformalPValues(
        np.where(given.detected, result, 1.0), given.smallest(everything, rng), given.count(everything)
    )


@dataclass(frozen=True)
class _Given:
    """Checked arguments: large scores are extreme, undetected ones are -inf; (...,), and (m,) or (..., m)."""

    scores: NDArray[np.float64]
    detected: NDArray[np.bool_]
    weights: NDArray[np.float64]
    calibration: NDArray[np.float64]
    calibration_detected: NDArray[np.bool_]
    calibration_weights: NDArray[np.float64]
    groups: NDArray[np.bool_] | None  # (m, g): whose score each is

    @classmethod
    def of(
        cls, scores, calibration, detected, calibration_detected, extreme, weights, calibration_weights, groups, rng
    ) -> "_Given":
        if not isinstance(extreme, str) or extreme not in ("large", "small"):
            raise InvalidInputError(f'extreme must be "large" or "small", not {extreme!r}')
        if (weights is None) != (calibration_weights is None):
            raise InvalidInputError("give weights and calibration_weights, or neither: they have a common scale")
        if weights is not None and groups is not None:
            raise InvalidInputError("give weights or calibration_groups, not both: groups count alike")
        if rng is not None:
            generator(rng)
        sign = 1.0 if extreme == "large" else -1.0
        scores, detected = _detected_scores(scores, detected, sign, "scores")
        calibration, calibration_detected = _detected_scores(calibration, calibration_detected, sign, "calibration")
        if calibration.ndim == 0:
            raise InvalidInputError("calibration must have shape (m,), or (..., m)")
        if calibration.ndim > 1 and calibration.shape[:-1] != scores.shape:
            raise InvalidInputError(
                f"calibration must have shape (m,) or ({', '.join(map(str, scores.shape))}, m), not {calibration.shape}"
            )
        return cls(
            scores,
            detected,
            _weights(weights, scores.shape, "weights"),
            calibration,
            calibration_detected,
            _weights(calibration_weights, calibration.shape, "calibration_weights"),
            None if groups is None else _memberships(groups, calibration.shape[-1]),
        )

    def p_values(self, which: NDArray[np.bool_], rng: np.random.Generator | None) -> NDArray[np.float64]:
        """Share of the test and of the calibration scores that are as extreme, among these and the test."""
        if self.groups is None:
            counted = np.where(which, self.calibration_weights, 0.0)
        else:
            sizes = which @ self.groups.astype(float)
            counted = which / np.maximum(sizes @ self.groups.T, 1.0)
        larger = self.calibration > self.scores[..., None]
        tied = self.calibration == self.scores[..., None]
        share = 1.0 if rng is None else rng.random(self.scores.shape)
        part = np.where(larger, counted, 0.0).sum(-1) + share * (np.where(tied, counted, 0.0).sum(-1) + self.weights)
        return np.minimum(part / self.total(which), 1.0)

    def smallest(self, which: NDArray[np.bool_], rng: np.random.Generator | None) -> NDArray[np.float64]:
        return np.zeros(self.scores.shape) if rng is not None else self.weights / self.total(which)

    def total(self, which: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Weight of these calibration scores and of the test; of groups, without the rounding of their shares."""
        if self.groups is not None:
            return self.count(which) + self.weights
        return np.where(which, self.calibration_weights, 0.0).sum(-1) + self.weights

    def count(self, which: NDArray[np.bool_]) -> NDArray[np.int64]:
        found = which if self.groups is None else (which[..., None] & self.groups).any(-2)
        return np.broadcast_to(found.sum(-1), self.scores.shape).astype(np.int64)


def _detected_scores(scores: ArrayLike, detected: ArrayLike | None, sign: float, name: str):
    """Scores with -inf where nothing was detected, and what was detected."""
    scores = real_array(scores, name, infinite=True, missing=True)
    detected = np.ones(scores.shape, bool) if detected is None else np.asarray(detected)
    if detected.dtype != bool or detected.shape != scores.shape:
        raise InvalidInputError(f"what was detected must be of bool, in the shape of {name}, {scores.shape}")
    real_array(scores[detected], name)
    return np.where(detected, sign * scores, -np.inf), detected


def _weights(weights: ArrayLike | None, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    if weights is None:
        return np.ones(shape)
    weights = real_array(weights, name)
    if weights.shape != shape or not (weights > 0).all():
        raise InvalidInputError(f"{name} must be positive, of shape {shape}, not of shape {weights.shape}")
    return weights


def _memberships(groups: ArrayLike, m: int) -> NDArray[np.bool_]:
    """Which group each of the m calibration scores belongs to, (m, g)."""
    of = labels(groups, "calibration_groups", m)
    return of[:, None] == np.unique(of)
