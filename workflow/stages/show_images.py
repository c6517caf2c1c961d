"""Look at single images: examples of detected patches, the noise of normal ones, and a map of p-values."""

import numpy as np
import pandas as pd

from sigad.knn.network import NetworkFeatures
from sigad.study import kinds
from sigad.study.image_views import examples, examples_content, noise_adequacy, pvalue_map
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    params, out = snakemake.params, snakemake.output
    setting = kinds.load(params.kind).of(params.setting)
    given = setting.load(dict(snakemake.input.items()))
    images, features = given["images"], NetworkFeatures(given["features"])

    adequacy = noise_adequacy(images, params.seed, n=setting.n)
    parts = [pd.DataFrame({"dataset": images.name, "covariance": kind, **values}) for kind, values in adequacy.items()]
    pd.concat(parts, ignore_index=True).to_csv(out.noise, index=False)

    found, looked_at = examples(setting, images, features, params.seed, alpha=params.alpha)
    log.info("examples: %d, out of so many trials: %s", len(found), looked_at)
    np.savez_compressed(out.examples, **examples_content(found, images))

    seen = pvalue_map(setting, images, features, params.seed, level=params.level)
    log.info(
        "map: %d of %d patches detected, %d rejected, %d of those defective",
        *(seen.detected.sum(), seen.detected.size, seen.rejected.sum(), (seen.rejected & (seen.defect > 0)).sum()),
    )
    np.savez_compressed(out.map, **vars(seen))
