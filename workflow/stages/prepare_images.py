"""Check the images of a set and bring them into one form."""

from sigad.data.images import texture_patches
from sigad.data.mvtec import read_category
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    name, entry = snakemake.wildcards.dataset, snakemake.params.entry
    if entry["source"] == "package":
        images = texture_patches(name, entry["patch"])
    else:
        images = read_category(snakemake.input[0], patch=entry["patch"], counts=entry.get("counts"))
    log.info(
        "%d images of %s, %d of them normal; %d defective patches; %d x %d patches of %d pixels",
        *(len(images), images.images.shape[1:], images.normal.sum(), len(images.anomalies())),
        *(*images.grid, images.patch),
    )
    images.save(snakemake.output.images, snakemake.output.facts)
