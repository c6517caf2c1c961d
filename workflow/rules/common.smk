# Helpers of the rules: the experiments that the configuration defines, and the files that they lead to. No rules here.

import os
import sys

# The library of this checkout is used, in whatever environment a stage runs, installed or not.
SOURCE = os.path.join(workflow.basedir, "src")
sys.path.insert(0, SOURCE)
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [SOURCE, os.getenv("PYTHONPATH")])))
# Parallelism is over jobs. Threads within numpy would only get in each other's way.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

from functools import cache
from itertools import product
from pathlib import Path

import pandas as pd
from snakemake.exceptions import WorkflowError
from snakemake.utils import Paramspace, validate

from sigad.data.mvtec import folder_of
from sigad.data.sources import enabled_datasets, local_path
from sigad.errors import SigadError
from sigad.study.design import grid_values, lay_out, require_images
from sigad.study.kinds.localization_synthetic import model_name
from sigad.study.provenance import source_digest

validate(config, str(Path(workflow.basedir, "config/schemas/config.schema.yaml")))


def grid_points(grid):
    """The points of a grid, in a Snakemake Paramspace: name -> the parameters that vary."""
    points = [dict(zip(grid, values)) for values in product(*grid.values())]
    space = Paramspace(
        pd.DataFrame(points, columns=list(grid), dtype=object),
        filename_params="*",
        param_sep="=",
        filename_sep="_",
        single_wildcard="setting",
    )
    return dict(zip(space.instance_patterns, points))


DATA = config["data"]
validate(
    {"tabular": config["tabular"], "images": config.get("images", {})},
    str(Path(workflow.basedir, "config/schemas/datasets.schema.yaml")),
)
try:
    DATASETS, LEFT_OUT = enabled_datasets(config["tabular"], DATA)
    EXPERIMENTS = {
        name: lay_out(name, entry, grid_points(grid_values(entry["grid"], DATASETS)), config)
        for name, entry in config["experiments"].items()
    }
    for experiment in EXPERIMENTS.values():
        for setting in experiment.settings.values() if experiment.kind == "knn_images" else ():
            require_images(setting, config, DATA)
except SigadError as error:
    raise WorkflowError(f"{type(error).__name__}: {error}") from None


wildcard_constraints:
    experiment="[A-Za-z0-9_]+",
    setting="[A-Za-z0-9_=.,+-]+",
    method="[a-z0-9_]+",
    chunk="[0-9]+-[0-9]+",
    dataset="[a-z0-9_]+",


onstart:
    print(f"Data sets used: {', '.join(DATASETS)}", file=sys.stderr)
    for name, reason in LEFT_OUT.items():
        print(f"Data set left out: {name} ({reason})", file=sys.stderr)


@cache
def stage_code(rule, *modules):
    """Digest of a rule's stage, of the given modules, and of every module of the library that they import."""
    return source_digest(
        Path(workflow.basedir, "workflow/stages", f"{rule}.py"),
        *(Path(SOURCE, *module.split(".")).with_suffix(".py") for module in modules),
    )


def method_code(name):
    """Digest of what a method's trials depend on: the stage, the method, and the kind of the experiment."""
    return lambda wildcards: stage_code(
        "test",
        f"sigad.study.methods.{name}",
        f"sigad.study.kinds.{EXPERIMENTS[wildcards.experiment].kind}",
    )


def setting_of(wildcards):
    """The parameters of a grid point, defaults included."""
    return EXPERIMENTS[wildcards.experiment].settings[wildcards.setting]


def experiments_with(plot):
    """Wildcard pattern of the experiments that are drawn as this kind of plot."""
    return "|".join(e.name for e in EXPERIMENTS.values() if e.plot["type"] == plot) or "none"


def trial_files(wildcards):
    """Every file of trials of an experiment."""
    experiment = EXPERIMENTS[wildcards.experiment]
    return [
        f"<results>/trials/{experiment.name}/{setting}/{method}/{chunk}.parquet"
        for setting, method, chunk in experiment.cells
    ]


def tables_to_download():
    """The enabled data sets that have a file which is not there yet; a file that is there is never written again."""
    return [
        name
        for name in DATASETS
        if config["tabular"][name]["source"] in ("kaggle", "url")
        and not local_path(name, DATA).is_file()
    ]


def table_file(wildcards):
    """The file of a data set; none for those that ship inside a package."""
    entry = config["tabular"][wildcards.dataset]
    if entry["source"] == "package":
        return []
    return (
        str(Path(entry["path"]).expanduser())
        if entry["source"] == "csv"
        else str(local_path(wildcards.dataset, DATA))
    )


@cache
def image_settings():
    """A setting for each image set that an experiment uses: the first one."""
    settings = [
        setting
        for e in EXPERIMENTS.values()
        if e.kind == "knn_images"
        for setting in e.settings.values()
    ]
    return {setting["dataset"]: setting for setting in reversed(settings)}


def images_to_download():
    """The image sets that an experiment uses and that are not there yet."""
    return [
        name
        for name in image_settings()
        if config["images"][name]["source"] == "mvtec" and not folder_of(name, DATA).is_dir()
    ]


def image_folder(wildcards):
    """The folder of an image set; none for those that ship inside a package."""
    if config["images"][wildcards.dataset]["source"] == "package":
        return []
    return str(folder_of(wildcards.dataset, DATA))


def image_inputs(wildcards, setting=None):
    """The prepared images and the network of a setting with images."""
    setting = setting or image_settings()[wildcards.dataset]
    stem = f"<results>/images/{setting['dataset']}"
    return {
        "images": f"{stem}.npy",
        "facts": f"{stem}.json",
        "features": f"<results>/features/{setting['features']}.pt",
    }


def trial_inputs(wildcards):
    """What the trials of a setting need: their data set, their network, or the threshold of their distribution."""
    kind = EXPERIMENTS[wildcards.experiment].kind
    if kind == "localization_synthetic":
        return {"model": f"<results>/models/{model_name(setting_of(wildcards))}"}
    if kind == "knn_images":
        return image_inputs(wildcards, setting_of(wildcards))
    if kind == "knn_tabular":
        return {"table": f"<results>/data/{setting_of(wildcards)['dataset']}.parquet"}
    return {"threshold": f"<results>/thresholds/{wildcards.experiment}/{wildcards.setting}.json"}


def networks():
    """The settings of the diffusion models that have to be trained, one of each."""
    settings = [
        setting
        for e in EXPERIMENTS.values()
        if e.kind == "localization_synthetic"
        for setting in e.settings.values()
    ]
    return list({model_name(setting): setting for setting in settings}.values())


def plot_of(wildcards):
    """How an experiment is drawn."""
    return EXPERIMENTS[wildcards.experiment].plot


def figures():
    """Every figure that the configuration asks for, and the numbers beside it."""
    names = [e.name for e in EXPERIMENTS.values()] + ["fig06_models"]
    if networks():
        names += ["dal_training", "dal_appC_activation"]
    if image_settings():
        names += ["fig05_examples", "image_noise"]
        names += [f"image_map_{dataset}" for dataset in image_settings()]
    return expand("<results>/figures/{name}.{suffix}", name=names, suffix=["pdf", "png", "csv"])


def tables():
    """Every table that the configuration asks for."""
    return ["<results>/tables/datasets.csv"]
