"""MVTec AD transistor: a verdict beforehand, from normal images alone, and p-values that are conformalised by images.

    python benchmarks/conformal_images.py results/reference/conformal_images.csv FOLDER   # with mvtec_ad_256, weights

64 positions of 32 x 32 patches at 256 x 256, a `NormalModel` for each, features as in benchmarks/power_images.py, k = 5
or 1 to 10, against the neighbourhood and against the k-th neighbour. Six times, the 273 normal images are shuffled:
60 are tested, with the defective patches, and the other 213 are all that is known beforehand.

``selective``                 models fitted on the 213: their p-values.
``conformalised``             models fitted on 140 of them; their p-values of the patches of the other 73, at all
                              positions, calibrate (given detection; ``calibration_groups``: the images count alike).
``conformalised_inspected``   the same per inspected patch.

``refused_by_images``, ...: how often of the six times `sigad.judge` refuses, is undecided, and holds, from out-of-fold
p-values of the 213, with the images for groups, and without (``_by_patches``). The interval in ``low``, ``high`` takes
patches for independent. Type I errors have ``image_rate`` as well, which is what conformalised p-values guarantee: the
mean over images of the share of their detected patches that is rejected; its interval (``image_low``, ``image_high``)
counts one detected patch of each image, drawn at random.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from power_images import networks, positions
from power_tables import ALPHA, KS, write

from sigad import judge
from sigad.data.images import ImageSet
from sigad.data.mvtec import read_category
from sigad.data.table import Table
from sigad.inference.conformal import detection_conditional, unconditional
from sigad.knn import NormalModel
from sigad.study.rates import clopper_pearson

CATEGORY, SPLITS, TESTED, CALIBRATION = "transistor", 6, 60, 73
AGAINST, VERDICTS = ("neighbourhood", "neighbour"), ("refused", "undecided", "holds")
SEED = 20251


def p_values(models: list[NormalModel], rows: list[np.ndarray], against: str) -> np.ndarray:
    """Those of rows (n, D) of each table by its model, one table after the other; some have no rows."""
    pairs = [(replace(model, against=against), x) for model, x in zip(models, rows, strict=True) if len(x)]
    return np.concatenate([model.test(x).p_value for model, x in pairs])


def split(tables: list[Table], number: int, **settings) -> Iterator[tuple]:
    """Hypothesis, verdicts beforehand by images and patches, measure, method, p-values, images of normal patches."""
    order = np.random.default_rng((SEED, number)).permutation(tables[0].normal.sum())
    tested, known = order[:TESTED], order[TESTED:]
    calibration, fitted = known[:CALIBRATION], known[CALIBRATION:]
    of_known, of_fitted = (
        [NormalModel.fit(t.x[t.normal][which], seed=number, **settings) for t in tables] for which in (known, fitted)
    )
    rows = {"type1": [t.x[t.normal][tested] for t in tables], "power": [t.x[~t.normal] for t in tables]}
    for against in AGAINST:
        out_of_fold = [
            NormalModel.out_of_fold(t.x[t.normal][known], seed=number, against=against, **settings) for t in tables
        ]
        known_p, of_images = np.concatenate(out_of_fold), np.tile(known, len(tables))
        verdict = judge(known_p, groups=of_images).verdict, judge(known_p).verdict
        of_normals = p_values(of_fitted, [t.x[t.normal][calibration] for t in tables], against)
        for measure, its in rows.items():
            p = p_values(of_fitted, its, against)
            given = {
                "extreme": "small",
                "detected": ~np.isnan(p),
                "calibration_detected": ~np.isnan(of_normals),
                "calibration_groups": np.tile(calibration, len(tables)),
            }
            for method, found in (
                ("selective", p_values(of_known, its, against)),
                ("conformalised", detection_conditional(p, of_normals, **given).p_value),
                ("conformalised_inspected", unconditional(p, of_normals, **given).p_value),
            ):
                yield against, verdict, measure, method, found, np.tile(tested, len(tables))


def run(images: ImageSet, features: Callable[[np.ndarray], np.ndarray], **settings) -> Iterator[dict]:
    """Rows of the result, one for each hypothesis, measure and method."""
    tables = [classes.table for classes in positions(images, features)]
    splits = [list(split(tables, number, **settings)) for number in range(SPLITS)]
    for alike in zip(*splits, strict=True):
        against, _, measure, method, *_ = alike[0]
        _, verdicts, _, _, parts, tested = zip(*alike, strict=True)
        p = np.concatenate(parts)
        detected, rejected = int((~np.isnan(p)).sum()), int((p <= ALPHA).sum())
        low, high = clopper_pearson(rejected, detected)
        row = {"against": against, "measure": measure, "method": method}
        row |= {"inspected": len(p), "detected": detected, "rejected": rejected}
        row |= {"rate": f"{rejected / detected:.4f}", "low": f"{low:.4f}", "high": f"{high:.4f}"}
        row |= dict.fromkeys(("of_images", "image_rate", "image_low", "image_high"), "")
        if measure == "type1":
            image, one = np.concatenate(tested), judge(p, groups=np.concatenate(tested))
            shares = [np.mean(p[its] <= ALPHA) for i in np.unique(image) if (its := (image == i) & ~np.isnan(p)).any()]
            numbers = {"image_rate": np.mean(shares), "image_low": one.type1_low, "image_high": one.type1_high}
            row |= {"of_images": one.n_detected} | {name: f"{value:.4f}" for name, value in numbers.items()}
        for by, given in zip(("images", "patches"), zip(*verdicts, strict=True), strict=True):
            row |= {f"{name}_by_{by}": given.count(name) if method == "selective" else "" for name in VERDICTS}
        yield row


def main() -> None:
    path, folder = Path(sys.argv[1]), Path(sys.argv[2])
    images, rows = read_category(folder / "mvtec_ad_256" / CATEGORY, patch=32), []
    for name, features, _ in networks(images, folder):
        for k, candidates in KS.items():
            transform = None if name == "pixels" else "yeo-johnson"
            rows += [
                {"features": name, "k": k} | row for row in run(images, features, k=candidates, transform=transform)
            ]
            print(*rows[-12:], sep="\n", flush=True)
            write(path, rows)


if __name__ == "__main__":
    main()
