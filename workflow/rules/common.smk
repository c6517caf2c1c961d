# Helpers of the rules: the experiments that the configuration defines, and the files that they lead to. No rules here.

import os
import re
import sys

# The checkout is where this file lies, which is neither the working directory nor, in another workflow that uses this one
# as a module, the folder of its Snakefile.
ROOT = os.path.realpath(workflow.current_basedir.join("../..").get_path_or_uri(secret_free=True))
# Its library is used, in whatever environment a stage runs, installed or not.
SOURCE = os.path.join(ROOT, "src")
if not os.path.isdir(SOURCE):
    sys.exit(
        f"sigad's workflow needs a local checkout: clone it, and give the path of its Snakefile, not {ROOT}"
    )
sys.path.insert(0, SOURCE)
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [SOURCE, os.getenv("PYTHONPATH")])))
# Parallelism is over jobs. Threads within numpy would only get in each other's way.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

from functools import cache
from pathlib import Path
from types import SimpleNamespace

from snakemake.cli import get_argument_parser
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from sigad.data import stack_sources
from sigad.data.files import put_there
from sigad.data.mvtec import folder_of
from sigad.data.sources import enabled_datasets, local_path
from sigad.errors import ConfigurationError, SigadError, near
from sigad.study.configuration import overridden, validate
from sigad.study.design import lay_out_all, needed_in
from sigad.study.kinds.localization_images import LocalizationImages
from sigad.study.knn_rows import KnnRows
from sigad.study.lineage import lineage
from sigad.study.logs import cause
from sigad.study.provenance import source_digest

# Whether the command `snakemake` runs this, rather than a program that uses Snakemake's API.
COMMAND = "snakemake" in (Path(sys.argv[0]).stem, Path(sys.argv[0]).parent.name)


def stop(error):
    """End with the one line that matters; a program gets an exception, which Snakemake shows with file and line."""
    message = f"{type(error).__name__}: {error}"
    if not COMMAND:
        raise WorkflowError(message) from None
    logger.error(message)
    sys.exit(1)


DATA = config["data"]
try:
    validate(config, Path(ROOT, "config/schemas"))
    DATASETS, LEFT_OUT = enabled_datasets(config["tabular"], DATA)
    EXPERIMENTS = lay_out_all(config, DATASETS)
except SigadError as error:
    stop(error)
if workflow.is_main_process:
    for line in overridden(workflow.config_settings.config, config):
        print(line, file=sys.stderr)

METHOD_RULES = sorted(
    str(path)
    for path in Path(ROOT, "workflow/rules/trials").glob("*.smk")
    if path.name != "test.smk"
)


wildcard_constraints:
    experiment="[A-Za-z0-9_]+",
    method="[A-Za-z0-9_=.,+-]+",
    part="[A-Za-z0-9_=.,+-]+",
    chunk="[0-9]+-[0-9]+",
    dataset="[a-z0-9_]+",


onstart:
    # Only where jobs to be run draw on all tables that can be had.
    named = {job.wildcards_dict.get("experiment") for job in workflow.dag.needrun_jobs()}
    if any(
        config["experiments"][name]["grid"].get("dataset") == "enabled"
        for name in named - {None}
    ):
        print(f"Data sets used: {', '.join(DATASETS)}", file=sys.stderr)
        for name, reason in LEFT_OUT.items():
            print(f"Data set left out: {name} ({reason})", file=sys.stderr)


onerror:
    print(failures(Path(log[0]).read_text(encoding="utf-8")), file=sys.stderr)


def failures(text):
    """The jobs that failed for good according to Snakemake's log, where their logs are, and the first line of the cause."""
    failed, block = {}, r"^Error in \S+ (\S+):\n((?: {4}.*\n)+)|^Finished jobid: (\d+)"
    for name, facts, finished in re.findall(block, text, re.MULTILINE):
        facts = dict(re.findall(r"^ {4}(\w+): (.*)$", facts, re.MULTILINE))
        # The last attempt counts: a job that was tried again may have finished.
        failed.pop(finished or facts["jobid"], None)
        if not finished:
            path = facts.get("log", "").partition(" (check")[0]
            outputs = facts.get("output", "").split(", ")
            lines = [f"{name}: {outputs[0]}{' ...' if outputs[1:] else ''}"]
            lines += [f"  log: {path}", f"  {cause(path)}"] if path else []
            failed[facts["jobid"]] = "\n".join(lines)
    return "\n".join([f"{len(failed)} job{'s' * (len(failed) != 1)} failed:", *failed.values()])


@cache
def stage_code(rule, *modules):
    """Digest of a rule's stage, of the given modules, and of every module of the library that they import."""
    return source_digest(
        Path(ROOT, "workflow/stages", f"{rule}.py"),
        *(Path(SOURCE, *module.split(".")).with_suffix(".py") for module in modules),
    )


def trial_code(experiment, method):
    """Digest of what a method's trials depend on: the stage, the method, and the kind of the experiment."""
    kind = EXPERIMENTS[experiment].kind
    return stage_code("test", f"sigad.study.methods.{method}", f"sigad.study.kinds.{kind}")


def method_code(name):
    """:func:`trial_code` of a method as a param."""
    return lambda wildcards: trial_code(wildcards.experiment, name)


def variants(name):
    """Wildcard pattern of a method, whatever its parameters."""
    return f"{name}(-.+)?"


def experiment_of(wildcards):
    """The experiment of a job."""
    return EXPERIMENTS[wildcards.experiment]


def part_of(wildcards):
    """The settings of the grid points that a job computes, defaults included."""
    points = experiment_of(wildcards).points(wildcards.method, wildcards.part)
    return {point: setting.values for point, setting in points.items()}


def settings_of(wildcards):
    """The settings of all grid points of an experiment, defaults included."""
    return {point: setting.values for point, setting in experiment_of(wildcards).settings.items()}


def experiments_with(plot):
    """Wildcard pattern of the experiments that are drawn as this kind of plot."""
    return "|".join(e.name for e in EXPERIMENTS.values() if e.plot["type"] == plot) or "none"


def trial_files(wildcards):
    """Every file of trials of an experiment."""
    experiment = experiment_of(wildcards)
    return [
        f"<results>/trials/{experiment.name}/{job.method}/{job.part}/{job.chunk}.parquet"
        for job in experiment.jobs
    ]


def trials_of(wildcards):
    """What the files of an experiment's trials must hold (see sigad.study.summary.Trials)."""
    experiment = experiment_of(wildcards)
    return {
        "experiment": experiment.name,
        "seed": config["seed"],
        "settings": settings_of(wildcards),
        "parts": {
            method: {name: list(part.points) for name, part in parts.items()}
            for method, parts in experiment.parts.items()
        },
        "jobs": [list(job) for job in experiment.jobs],
        "codes": {
            method: trial_code(experiment.name, method.partition("-")[0])
            for method in experiment.parts
        },
    }


def trial_inputs(wildcards):
    """What the trials of a job read."""
    files = experiment_of(wildcards).inputs(wildcards.method, wildcards.part)
    return [f"<results>/{path}" for path in files]


def trial_minutes(wildcards, attempt):
    """Twice what a job should take by the costs that its kind states, and a minute to start; more at every attempt."""
    seconds = experiment_of(wildcards).seconds(wildcards.method, wildcards.part, wildcards.chunk)
    return attempt * (2 + int(2 * seconds / 60))


def trial_memory(wildcards, attempt):
    """What a job should take; more at every attempt."""
    return attempt * experiment_of(wildcards).memory(wildcards.method, wildcards.part)


def tables_to_download():
    """The enabled data sets that have a file which is not there yet; a file that is there is never written again."""
    return [
        name
        for name in DATASETS
        if config["tabular"][name]["source"] in ("kaggle", "url")
        and not local_path(name, DATA).is_file()
    ]


def table_path(name):
    """The file of a data set; None for those that ship inside a package."""
    entry = config["tabular"][name]
    if entry["source"] == "package":
        return None
    return str(
        Path(entry["path"]).expanduser() if entry["source"] == "csv" else local_path(name, DATA)
    )


def table_file(wildcards):
    """:func:`table_path` as input."""
    return table_path(wildcards.dataset) or []


@cache
def image_settings():
    """The kind and the first setting that see it, of each image set that an experiment uses."""
    used = {}
    for experiment in EXPERIMENTS.values():
        for setting in experiment.settings.values():
            if "images" in setting.inputs(experiment.name):
                used.setdefault(setting.dataset, (experiment.kind, setting))
    return used


@cache
def stacks():
    """The stacks of whole images that an experiment uses."""
    found = needed_in("stacks", EXPERIMENTS)
    return list(dict.fromkeys(name.rpartition("_size=")[0] for name in found))


def stack_path(name):
    """Where the images of a stack lie; None for those that ship inside a package."""
    place = stack_sources.folder_of(name, config["stacks"][name], DATA)
    return None if place is None else str(place)


def stack_folder(wildcards):
    """:func:`stack_path` as input, if it is not a folder of the user's own."""
    own = config["stacks"][wildcards.dataset].get("folder")
    return [] if own else stack_path(wildcards.dataset) or []


def scans_to_download():
    """The sources of scans that an experiment uses and that are not there yet, by where they will lie within the data."""
    entries = {name: config["stacks"][name] for name in stacks()}
    places = {
        entry["source"]: Path(stack_path(name))
        for name, entry in entries.items()
        if entry["source"] in ("lgg", "brats") and not entry.get("folder")
    }
    return {
        str(place.relative_to(DATA)): source
        for source, place in places.items()
        if not place.is_dir()
    }


@cache
def validity_experiments():
    """The experiments that compare all tests of the figure of Type I error on real data."""
    return [
        name
        for name, experiment in EXPERIMENTS.items()
        if experiment.measure == "type1"
        and experiment.plot["type"] == "rates"
        and {"proposed", "proposed_plugin", "neighbourhood", "neighbourhood_plugin"}
        <= set(experiment.methods)
        and experiment.plot["x"] == "dataset"
    ]


@cache
def diagnosed_settings():
    """The experiment and the first setting of each data set whose noise model is diagnosed: tables, image sets of which
    features are the data, and stacks of whole images."""
    found = {}
    for experiment in EXPERIMENTS.values():
        for setting in experiment.settings.values():
            if isinstance(setting, KnnRows | LocalizationImages):
                name = getattr(setting, "stack", setting.dataset)
                found.setdefault(name, (experiment, setting))
    return found


@cache
def embedded():
    """The image sets whose features are the data of an experiment."""
    return list(dict.fromkeys(Path(path).parts[0] for path in needed_in("embeddings", EXPERIMENTS)))


def images_to_download():
    """The image sets that an experiment uses and that are not there yet."""
    whole = [
        name
        for name in stacks()
        if config["stacks"][name]["source"] == "mvtec" and not config["stacks"][name].get("folder")
    ]
    return [
        name
        for name in dict.fromkeys([*image_settings(), *embedded(), *whole])
        if config["images"][name]["source"] == "mvtec" and not folder_of(name, DATA).is_dir()
    ]


def image_path(name):
    """The folder of an image set; None for those that ship inside a package."""
    return None if config["images"][name]["source"] == "package" else str(folder_of(name, DATA))


def image_folder(wildcards):
    """:func:`image_path` as input."""
    return image_path(wildcards.dataset) or []


def image_inputs(wildcards):
    """The prepared images and the network of the setting that stands for an image set."""
    _, setting = image_settings()[wildcards.dataset]
    return {name: f"<results>/{path}" for name, path in setting.inputs("").items()}


def networks():
    """The names of the diffusion models that have to be trained."""
    return needed_in("models", EXPERIMENTS)


@cache
def recipe(path):
    """What a file that trials read is made from: data, settings, seed and code. The path is relative to the results."""
    folder, _, name = path.partition("/")
    name, seed = name.partition(".")[0], config["seed"]
    if folder == "data":
        return config["tabular"][name], put_there(table_path(name)), stage_code("prepare_table")
    if folder == "images":
        return config["images"][name], put_there(image_path(name)), stage_code("prepare_images")
    if folder == "features":
        entry = config["features"][name]
        return entry, put_there(entry.get("path")), seed, stage_code("prepare_features")
    if folder == "embeddings":
        dataset, _, network = name.partition("/")
        made_from = recipe(f"images/{dataset}"), recipe(f"features/{network}")
        return *made_from, stage_code("embed_images")
    if folder == "stacks":
        dataset = name.rpartition("_size=")[0]
        entry = config["stacks"][dataset]
        place = put_there(stack_path(dataset))
        return name, entry, place, seed, stage_code("prepare_stack")
    if folder == "detectors":
        stack, _, detector = name.rpartition("_")
        made_from = recipe(f"stacks/{stack}.npz")
        return made_from, config["detectors"][detector], seed, stage_code("train_detector")
    if folder == "models":
        return name, config["training"], seed, stage_code("train_diffusion")
    if folder == "calibration":
        # Trials read the scores that belong to their own settings, which are among their own params.
        return config["calibration"], seed, calibration_code(name)
    raise WorkflowError(
        f"{path}: say in recipe(), in {ROOT}/workflow/rules/common.smk, what it is made from"
    )


def calibration_code(experiment):
    """Digest of what the calibration of an experiment depends on."""
    return stage_code("calibrate", f"sigad.study.kinds.{EXPERIMENTS[experiment].kind}")


def trial_lineage(wildcards):
    """Lineage of what the trials of a job read."""
    files = experiment_of(wildcards).inputs(wildcards.method, wildcards.part)
    return lineage(*map(recipe, files))


def experiment_lineage(wildcards):
    """Lineage of what any of the trials of an experiment reads."""
    experiment = experiment_of(wildcards)
    files = {
        path
        for setting in experiment.settings.values()
        for path in setting.inputs(experiment.name).values()
    }
    return lineage(*map(recipe, sorted(files)))


def rates_lineage(name):
    """Lineage of the rates of an experiment."""
    at = SimpleNamespace(experiment=name)
    return lineage(
        trials_of(at),
        experiment_lineage(at),
        *[config[key] for key in ("alpha", "confidence")],
        stage_code("plot_rates"),
    )


def diagnosed_files():
    """What the settings of :func:`diagnosed_settings` read."""
    return [
        path
        for experiment, setting in diagnosed_settings().values()
        for path in setting.inputs(experiment.name).values()
    ]


def image_lineage(dataset):
    """Lineage of the views of an image set."""
    kind, setting = image_settings()[dataset]
    return lineage(
        setting.values,
        stage_code("show_images", f"sigad.study.kinds.{kind}"),
        *[config[key] for key in ("seed", "alpha", "false_discovery_rate")],
        *map(recipe, setting.inputs("").values()),
    )


def require_known(rules):
    """Stop if a target is none of these rules, nor a file that is there or that one of them makes. While rules are read,
    only the command line tells targets."""
    names = [rule.name for rule in rules if not rule.has_wildcards()]
    ours = os.path.realpath(workflow.main_snakefile) == os.path.join(ROOT, "Snakefile")
    if not (COMMAND and workflow.is_main_process and ours):
        return
    for target in get_argument_parser().parse_args(sys.argv[1:]).targets or ():
        made = target in names or any(rule.is_producer(target) for rule in rules)
        if not made and not os.path.exists(target):
            stop(
                ConfigurationError(
                    f"there is no figure or other target {target!r}{near(Path(target).stem, names) or '.'} "
                    "All of them: snakemake --list-target-rules"
                )
            )


def plot_of(wildcards):
    """How an experiment is drawn."""
    return experiment_of(wildcards).plot


@cache
def figures():
    """Every figure that the configuration asks for: name -> what it shows."""
    shown = {e.name: e.plot["caption"] for e in EXPERIMENTS.values()}
    if validity_experiments():
        shown["real_type1"] = (
            "Type I error on every real data set, of both hypotheses and treatments of the covariance."
        )
    if diagnosed_settings():
        shown["diagnosis"] = (
            "Does the noise model hold? The verdict of sigad.diagnose on each data set."
        )
    shown["fig06_models"] = (
        "The two synthetic settings in two dimensions (Figure 6 of the kNN paper)."
    )
    if networks():
        shown["dal_training"] = "Loss curves of the diffusion models."
        shown["dal_appC_activation"] = "SiLU and the piecewise-linear function that replaces it."
    if image_settings():
        shown["fig05_examples"] = "Examples of detected patches (Figure 5 of the kNN paper)."
        shown["image_noise"] = "How far real patches are from the noise models."
        for dataset in image_settings():
            shown[f"image_map_{dataset}"] = (
                f"P-values of the detected patches of one image of {dataset}."
            )
    return {name: " ".join(caption.split()) for name, caption in shown.items()}


def figure_files(name):
    """A figure, and the numbers that it shows."""
    return expand("<results>/figures/{name}.{suffix}", name=name, suffix=["pdf", "png", "csv"])


def image_figure(name, caption):
    """The files of a figure of images, as outputs that stand in the report."""
    pdf, png, csv = figure_files(name)
    about = dict(caption=caption, category="Images")
    png = report(png, labels={"figure": name, "what": "figure"}, **about)
    csv = report(csv, labels={"figure": name, "what": "numbers"}, **about)
    return [pdf, png, csv]


def tables():
    """Every table that the configuration asks for."""
    return ["<results>/tables/datasets.csv"]
