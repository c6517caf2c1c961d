"""The selective test on a lattice: conditions on the selection, and on the statistic mod the spacing. Exact.

It asks no more of a detector than that it can be run, at a cost that does not depend on its linear pieces
(:mod:`sigad.inference.lattice`). Spacing and cells are chosen on pilots, normal data that have no part in any trial;
never on the data under test.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from sigad.errors import NumericalError
from sigad.inference.result import TOLERANCE, Decision
from sigad.seeds import Streams
from sigad.study.kinds import Block, Cost
from sigad.study.methods import Method
from sigad.study.problems import Evaluated, PValues
from sigad.study.settings import setting

# The engine needs torch, which laying out an experiment does not: it is imported when it is used.
if TYPE_CHECKING:
    from sigad.inference.spacing import Pilots

logger = logging.getLogger(__name__)

SPACING = 0.05
"""Where no pilot is selected."""

BATCH = 32
"""Evaluations between two looks at the bounds on the p-value."""

EXTENT = 5.0
"""The finest lattice that is tried has as many points on so many standard deviations as there may be evaluations."""


@dataclass(frozen=True)
class OnLattice(Method[Evaluated]):
    """Selective p-values given the statistic modulo a spacing."""

    label = "lattice"
    needs = frozenset({"evaluations"})

    spacing: float = setting(0, "of the lattice, in standard deviations; 0: chosen on pilots", low=0)
    cell: float = setting(0, "width of the cells; 0: the whole line, or chosen with the spacing", low=0)
    evaluations: int = setting(400, "of the detector that a test may need, on average over the pilots", low=32)
    pilots: int = setting(16, "selected hypotheses about other data on which spacing and cells are chosen", low=1)
    levels: int = setting(0, "of refinement: for the data under test, the spacing is halved so often at most", low=0)
    points: int = setting(20, "while there are fewer points than these at which the selection is the same", low=1)
    p_value: Literal["conservative", "randomised"] = setting(
        "conservative",
        "the observation's own weight counts wholly, or by a random share: then p is exactly uniform",
        choices=("conservative", "randomised"),
    )
    decide_at: float = setting(
        0, "stop when p is known to be above or below this level; 0: when p is known", low=0, below=1, shown=False
    )

    def piloted(self, draw: Callable[[], Iterator[Block]]) -> Self:
        """The method with spacing and cells, unless they are given."""
        from sigad.inference.spacing import Pilots

        if self.spacing:
            return self
        engine = Pilots(spacing=EXTENT / self.evaluations, batch=BATCH)
        for _, problems in draw():
            own = self.hypotheses(problems)
            for which in np.flatnonzero(own.selected):
                with suppress(NumericalError):  # a pilot without a p-value
                    engine(*own[np.array([which])].hypotheses())
                if len(engine.found) == self.pilots:
                    return self._chosen(engine)
        return self._chosen(engine)

    def _chosen(self, engine: "Pilots") -> Self:
        if not engine.found:
            logger.info("no pilot is selected: spacing %g", SPACING)
            return self
        choice = engine.choose(evaluations=self.evaluations)
        logger.info("%s", choice)
        return replace(self, spacing=choice.chosen.spacing, cell=choice.chosen.cell or 0)

    def pvalues(self, problems: Evaluated, streams: Sequence[Streams]) -> PValues:
        from sigad.inference.lattice import Refinement, lattice

        refinement = Refinement(self.levels, self.points) if self.levels else None
        tolerance = Decision(self.decide_at) if self.decide_at else TOLERANCE
        return PValues.of(
            [
                lattice(
                    hypothesis,
                    spacing=self.spacing or SPACING,
                    cell=self.cell or None,
                    refinement=refinement,
                    tolerance=tolerance,
                    rng=stream.method() if self.p_value == "randomised" else None,
                    batch=BATCH,
                )
                for hypothesis, stream in zip(problems.hypotheses(), streams, strict=True)
            ]
        )

    @property
    def decides(self) -> float | None:
        return self.decide_at or None

    def seconds(self, cost: Cost) -> float:
        # A decision takes about half of the evaluations.
        each = (0.5 if self.decide_at else 1.0) * 2**self.levels * self.evaluations * cost.evaluation
        return cost.draw + cost.selected * each

    def pilot_seconds(self, cost: Cost) -> float:
        # A pilot is looked at on the finest lattice until its p-value is known: half as many points again.
        each = cost.draw / cost.selected + 1.5 * self.evaluations * cost.evaluation
        return 0.0 if self.spacing else self.pilots * each
