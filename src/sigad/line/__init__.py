"""Piecewise-linear networks along a line, exactly.

:func:`restrict` gives the output of a piecewise-linear torch module along x + t * direction as a :class:`LineFunction`;
:class:`Restriction` reads it window by window; :func:`roots`, :func:`above` and :func:`agreement` ask where it lies
above a level; :func:`piecewise` makes a network with smooth activations piecewise linear.
"""

from sigad.line import rules_affine, rules_piecewise  # noqa: F401  (they register themselves)
from sigad.line.activations import PiecewiseLinear, piecewise
from sigad.line.check import Check, check
from sigad.line.function import LineFunction
from sigad.line.levels import above, agreement, roots
from sigad.line.restriction import Restriction, concatenate, restrict

__all__ = [
    "Check",
    "LineFunction",
    "PiecewiseLinear",
    "Restriction",
    "above",
    "agreement",
    "check",
    "concatenate",
    "piecewise",
    "restrict",
    "roots",
]
