"""Look at single images: examples of detected patches, the noise of normal ones, and a map of p-values."""

import numpy as np
import pandas as pd

from sigad.data.images import ImageSet
from sigad.knn.network import NetworkFeatures
from sigad.models.features import restore_features
from sigad.study.image_views import examples, noise_adequacy, pvalue_map
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    params, out = snakemake.params, snakemake.output
    images = ImageSet.load(snakemake.input.images, snakemake.input.facts)
    features = NetworkFeatures(restore_features(snakemake.input.features))

    adequacy = noise_adequacy(images, params.seed, n=params.setting["n"])
    parts = [pd.DataFrame({"dataset": images.name, "covariance": kind, **values}) for kind, values in adequacy.items()]
    pd.concat(parts, ignore_index=True).to_csv(out.noise, index=False)

    found, looked_at = examples(images, features, params.setting, params.seed, alpha=params.alpha)
    log.info("examples: %d, out of so many trials: %s", len(found), looked_at)
    content = {
        f"{name}_{i}": pixels
        for i, example in enumerate(found)
        for name, pixels in (
            ("image", images.images[example.image]),
            ("patch", example.patch),
            ("neighbour", example.neighbour),
        )
    }
    facts = [
        {
            "truth": example.truth,
            "image": images.names[example.image],
            "row": example.position[0],
            "column": example.position[1],
            "patch": images.patch,
            "score": example.score,
            "naive": example.naive,
            "selective": example.selective,
        }
        for example in found
    ]
    np.savez_compressed(
        out.examples, facts=pd.DataFrame(facts).to_json(orient="records", double_precision=15), **content
    )

    seen = pvalue_map(images, features, params.setting, params.seed, level=params.level)
    log.info(
        "map: %d of %d patches detected, %d rejected, %d of those defective",
        *(seen.detected.sum(), seen.detected.size, seen.rejected.sum(), (seen.rejected & (seen.defect > 0)).sum()),
    )
    np.savez_compressed(out.map, **vars(seen))
