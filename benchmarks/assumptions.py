"""Which assumption fails where the neighbourhood test's Type I error on a real table is not the level's?

    python benchmarks/assumptions.py results/reference/knn_assumptions.csv [folder with further data [sets]]

The sets are tables, and MVTec AD transistor (thumbnails; the last features of a ResNet-20), each of whose 64 positions
is a table.

The test assumes that components of normal rows are normal, with one mean and covariance, and independent from row to
row. The normal rows of a table are therefore replaced by ones for which a part of this is true by construction, all
else being as it is, and the Type I error is measured as in benchmarks/power_tables.py (200 repetitions, the number of
components fixed at the rounded mean of those that the rule chose):

``procedure``      nothing is replaced: a fourth of the fitted rows fixes transform and axes, as in use.
``untransformed``  the same without the transform.
``as_it_is``       the rows, transformed (Yeo and Johnson) and rotated to their principal components, both fixed by all
                   of them; so in all that follow.
``marginals``      each component through its ranks to normal quantiles: margins are normal, the dependence between the
                   components of a row beyond their correlation stays.
``dependence``     each component permuted by itself: margins stay, components of a row are independent.
``classes``        where there are several classes, the rows minus the mean of their class: one mean.
``gaussian``       normal rows with the same mean and covariance, drawn anew in every repetition: all is true, and what
                   is left would be the doing of the size of the table or of an error of ours.

``setting``: ``model`` is `NormalModel` with k = 5 as above. ``pipeline``, of tables: figure 4's, that is fifths of the
normal rows for everything, n = 100 or a fifth, k from 1 to 10, one row tested at a time; 10,000 trials.

Beside it, on the rows as they are: p-values of Mardia's kurtosis (heavier tails, the components that are tested) and of
the dependence from row to row in the order of the file (squared autocorrelation at lag one, 999 permutations).
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
from power_images import RESNET20, THUMBNAIL, positions
from power_tables import AGAINST, ALPHA, REPETITIONS, Classes, run, tables, write
from scipy import stats

from sigad.data.mvtec import read_category
from sigad.data.table import Table
from sigad.knn.components import Components, excess_kurtosis_pvalue
from sigad.knn.network import NetworkFeatures
from sigad.models.features import load_features
from sigad.seeds import trial_streams
from sigad.study.kinds.knn_tabular import KnnTabular
from sigad.study.methods.neighbourhood import Neighbourhood
from sigad.study.methods.proposed import Proposed
from sigad.study.rates import clopper_pearson
from sigad.study.run import apply

TABLES, IMAGES, MORE, TRIALS = ("heart", "wine", "iris", "cancer", "money"), "transistor", 200, 50
SEED = 20251
PIPELINE = {"neighbourhood": Neighbourhood(), "neighbour": Proposed()}


def components_of(classes: Classes) -> tuple[np.ndarray, np.ndarray]:
    """All components of the transformed normal rows, and their classes."""
    x = classes.table.x[classes.table.normal]
    return Components.fit(x, "yeo-johnson")(x), classes.labels[classes.table.normal]


def variants(z: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[np.random.Generator], np.ndarray]]:
    """Rows (N, D) for which a part of the assumptions is true, from a source of randomness."""
    means = np.stack([z[labels == label].mean(axis=0) for label in np.unique(labels)])
    within = z - means[np.unique(labels, return_inverse=True)[1]]
    covariance = np.cov(z, rowvar=False)
    ranks = stats.rankdata(z, axis=0)
    scores = stats.norm.ppf((ranks - 0.5) / len(z)) * z.std(axis=0)
    found = {
        "as_it_is": lambda rng: z,
        "marginals": lambda rng: scores,
        "dependence": lambda rng: rng.permuted(z, axis=0),
        "gaussian": lambda rng: rng.multivariate_normal(np.zeros(len(covariance)), covariance, size=len(z)),
    }
    if len(means) > 1:
        found["classes"] = lambda rng: within
    return found


def made(name: str, rows: np.ndarray) -> Classes:
    """A table of normal rows."""
    columns = tuple(map(str, range(rows.shape[1])))
    return Classes(Table(name, rows, np.ones(len(rows), bool), columns), np.zeros(len(rows), int))


def order_pvalue(z: np.ndarray) -> float:
    """p-value of dependence between successive rows, by permutation."""
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    statistic = lambda rows: np.square((rows[1:] * rows[:-1]).mean(axis=0)).sum()  # noqa: E731
    rng, observed = np.random.default_rng(0), statistic(z)
    return (1 + sum(statistic(rng.permutation(z)) >= observed for _ in range(999))) / 1000


def sets(folder: Path | None) -> Iterator[tuple[str, list[Classes]]]:
    """The sets there are, and the tables of each."""
    for classes in tables(folder / "tabular" if folder else None):
        if classes.table.name in TABLES:
            yield classes.table.name, [classes]
    if folder and (place := folder / "mvtec_ad_256" / IMAGES).is_dir():
        resnet = RESNET20 | {"path": folder / "weights" / "cifar10_resnet20-12fca82f.th"}
        for name, entry in ((IMAGES, THUMBNAIL), (f"{IMAGES}, ResNet-20", resnet)):
            features = NetworkFeatures(load_features(entry)).approximate
            yield name, positions(read_category(place, patch=32), features)


def repeated(one: list, count: int) -> list:
    """All of them again and again, ``count`` times or, to have all as often, a little more."""
    return one * -(-count // len(one))


def in_the_pipeline(drawn: Iterable[Classes], components: int, transform: str | None) -> Iterator[dict]:
    """Rows of the result as of `power_tables.run`: trials of the kind ``knn_tabular``."""
    kind, found = KnnTabular(components=str(components), transform=transform or "none"), {name: [] for name in PIPELINE}
    for number, (table, _) in enumerate(drawn):
        its = trial_streams(SEED, "assumptions", table.name, range(number * TRIALS, (number + 1) * TRIALS))
        for streams, problems in kind.draw(its, table=table):
            for name, parts in found.items():
                parts.append(apply(PIPELINE[name], problems, streams)["p_value"])
    for name, parts in found.items():
        p = np.concatenate(parts)
        detected, rejected = int((~np.isnan(p)).sum()), int((p <= ALPHA).sum())
        low, high = clopper_pearson(rejected, detected)
        yield {
            "k": "1-10", "normal_rows": int(table.normal.sum()), "columns": table.x.shape[1],
            "components": f"{components:.2f}", "measure": "type1", "method": name,
            "inspected": len(p), "detected": detected, "rejected": rejected,
            "rate": f"{rejected / detected:.4f}", "low": f"{low:.4f}", "high": f"{high:.4f}", "mixed": "",
        }  # fmt: skip


def main() -> None:
    result = []
    for name, given in sets(Path(sys.argv[2]) if len(sys.argv) > 2 else None):
        if sys.argv[3:] and name not in sys.argv[3:]:
            continue
        (first, *_) = run(repeated(given, REPETITIONS), measures=("type1",))
        m = round(float(first["components"]))
        transformed = [components_of(classes) for classes in given]
        z, tests = transformed[0][0][:, :m], {"p_kurtosis": "", "p_order": ""}
        if len(given) == 1:
            tests = {"p_kurtosis": excess_kurtosis_pvalue(z), "p_order": order_pvalue(z)}
        replaced = [variants(*one) for one in transformed]
        settings = ("model", "pipeline") if len(given) == 1 else ("model",)
        for setting, variant in product(settings, ("procedure", "untransformed", *replaced[0])):
            rng = np.random.default_rng(SEED)
            if variant in replaced[0]:
                drawn = (made(name, draws[variant](rng)) for draws in repeated(replaced, MORE))
            else:
                drawn = repeated(given, MORE)
            transform = "yeo-johnson" if variant == "procedure" else None
            rows = (
                run(drawn, measures=("type1",), components=m, transform=transform)
                if setting == "model"
                else in_the_pipeline(drawn, m, transform)
            )
            named = {"table": name, "setting": setting, "variant": variant}
            result += [named | row | tests for row in rows if row["method"] in AGAINST]
            print(*result[-2:], sep="\n", flush=True)
            write(sys.argv[1], result)


if __name__ == "__main__":
    main()
