"""Type I error and power of conformal p-values on real normals: tables, patches of textures, MVTec AD transistor.

    python benchmarks/conformal_real.py results/reference/conformal_real.csv [folder with tabular and mvtec_ad_256]

Trials of the experiments `conformal_…_tabular` and `features_…_images`: every one splits the normal rows anew, fits on
its own part of them, and calibrates on those of the testing fifth that are not under test (threshold at the 0.7
quantile, k from 1 to 10). 1,500 inspected normal rows and 500 anomalous ones of each set; patches are thumbnails of
8 x 8 pixels. The first method is the selective test against the neighbourhood, whose p-values rank in
`conformal_selective`; all methods see the same detections. Given the set, trials are independent and the row under test
is exchangeable with the calibration rows, so that Type I errors of conformal p-values are at most the level by
construction, and intervals are exact. Where few normals were detected, no conformal p-value given detection reaches the
level: its power is 0.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from power_images import THUMBNAIL, sets
from power_tables import ALPHA, tables, write

from sigad.data.embeddings import Embeddings
from sigad.knn.network import NetworkFeatures
from sigad.models.features import load_features
from sigad.seeds import trial_streams
from sigad.study.kinds.knn_embeddings import KnnEmbeddings
from sigad.study.kinds.knn_tabular import KnnTabular
from sigad.study.knn_rows import KnnRows
from sigad.study.methods.conformal import Conformal
from sigad.study.methods.conformal_selective import ConformalSelective
from sigad.study.methods.conformal_unconditional import ConformalUnconditional
from sigad.study.methods.neighbourhood import Neighbourhood
from sigad.study.rates import rejection_rate
from sigad.study.run import apply

SEED, QUANTILE, TRIALS = 20251, 0.7, {"type1": ("normal", 1500), "power": ("anomaly", 500)}
METHODS = {
    "neighbourhood": Neighbourhood(),
    "conformal": Conformal(),
    "conformal_selective": ConformalSelective(),
    "conformal_unconditional": ConformalUnconditional(),
}


def data(folder: Path | None) -> Iterator[tuple[str, type[KnnRows], dict]]:
    """Name, kind and what it draws from, of every set."""
    for table, _ in tables(folder and folder / "tabular"):
        yield table.name, KnnTabular, {"table": table}
    thumbnail = NetworkFeatures(load_features(THUMBNAIL)).approximate
    for images, _ in sets(folder):
        yield images.name, KnnEmbeddings, {"embeddings": Embeddings.of(images, thumbnail)}


def main() -> None:
    rows = []
    for name, kind, given in data(Path(sys.argv[2]) if len(sys.argv) > 2 else None):
        for measure, (instance, count) in TRIALS.items():
            found: dict[str, list] = {method: [] for method in METHODS}
            its = trial_streams(SEED, "conformal_real", f"{name}, {instance}", range(count))
            for streams, problems in kind(quantile=QUANTILE, instance=instance).draw(its, **given):
                for method, parts in found.items():
                    parts.append(apply(METHODS[method], problems, streams))
            for method, parts in found.items():
                columns = [np.concatenate([part[key] for part in parts]) for key in ("status", "null_true", "p_value")]
                rate = rejection_rate(*columns, measure=measure, alpha=ALPHA)._asdict()
                rate |= {key: f"{rate[key]:.4f}" for key in ("rate", "low", "high")}
                rows.append({"data": name, "measure": measure, "method": method} | rate)
                print(rows[-1], flush=True)
        write(sys.argv[1], rows)


if __name__ == "__main__":
    main()
