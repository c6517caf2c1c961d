"""Features of all patches of a set of images, by a network: the data of the kind knn_embeddings."""

from sigad.data.embeddings import Embeddings
from sigad.data.images import ImageSet
from sigad.knn.network import NetworkFeatures
from sigad.models.features import restore_features
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    images = ImageSet.load(snakemake.input.images, snakemake.input.facts)
    network = NetworkFeatures(restore_features(snakemake.input.features))
    embeddings = Embeddings.of(images, network.approximate)
    log.info("%d x %d positions, %d images, %d features", *embeddings.values.shape)
    embeddings.save(snakemake.output.embeddings)
