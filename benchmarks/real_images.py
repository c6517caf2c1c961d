"""Real images: Type I on held-out normal slices and power on tumours or defects, by patient, for what is compared.

    python benchmarks/real_images.py prepare lgg SOURCE WORK --size 64 --seen EARLIER/64.csv
    python benchmarks/real_images.py train WORK --size 64 --model autoencoder --epochs 150
    python benchmarks/real_images.py run WORK --size 64 --model autoencoder --resolution 8 --flagged 0.3
    python benchmarks/real_images.py regions WORK --size 64 --model components --resolution 8
    python benchmarks/real_images.py panels WORK --size 64 --model autoencoder --resolution 8 --to panels.png
    python benchmarks/real_images.py report WORK

SOURCE is a folder of TCGA-LGG (or its .npz), of BraTS-like volumes (brats), of a category of MVTec AD (mvtec), or the
name of a texture of scikit-image; WORK a folder for what is made. ``--seen`` names the manifest of an earlier split, on
whose test patients settings were chosen: none of them is for testing again. ``--beside lgg SOURCE`` takes all that is
not tested from a second set, for a set of few patients. A run appends a row per image to WORK/rows.csv, and goes on
behind the last one; a report reads all rows and writes counts to WORK/rates.csv.

What is fixed before a test image is looked at comes from :func:`sigad.localization.setup.set_up`; the conformal scores
come from the patients for calibration. The selective p-value is that of the exact engine for principal components up to
64 pixels, and else of the lattice engine, with a detector in single precision.
"""

import argparse
import csv
import os
import time
from dataclasses import replace
from pathlib import Path

import _real_images_report as shown
import numpy as np
import pandas as pd
import torch

from sigad.data import brats, image_noise, lgg, mvtec
from sigad.data.stack import ImageStack, Preparation, prepare
from sigad.data.textures import read_texture
from sigad.errors import NumericalError
from sigad.inference.exact import exact
from sigad.inference.lattice import Refinement, lattice
from sigad.inference.region import WHOLE_LINE
from sigad.inference.truncated import truncated_pvalue
from sigad.localization.contrast import contrast
from sigad.localization.hypothesis import MaskHypothesis
from sigad.localization.permutation import permutation_pvalue
from sigad.localization.setup import set_up
from sigad.localization.thinning import thinned_test
from sigad.models import autoencoder
from sigad.models.autoencoder import Autoencoder
from sigad.models.components import ComponentReconstruction
from sigad.models.diffusion import training as diffusion
from sigad.models.diffusion.reconstruct import Reconstruction, draw_noises
from sigad.models.diffusion.unet import UNet
from sigad.models.fitting import mirrored
from sigad.models.saved import restore
from sigad.seeds import Streams

SEED = 20251
SHARES = {"train": 0.3, "noise": 0.12, "calibration": 0.22, "reference": 0.08, "test": 0.28}
BRAIN = {"align": True, "intensity": "robust", "clip": 4.0, "standardise": True}
HOW = {
    "lgg": {"levels": (0.5, 0.95), "brain": "found", **BRAIN},
    "brats": {"levels": (0.4, 0.8), "per_group": 12, "brain": "given", **BRAIN},
    "mvtec": {"standardise": True},
    "texture": {"standardise": True},
}
TAU, PATIENCE = 0.5, 2
LATTICE = {"spacing": 0.1, "refinement": Refinement(2, 20)}


def read(kind: str, source: Path):
    if kind == "lgg":
        return lgg.read_npz(source) if source.suffix == ".npz" else lgg.read_folder(source)
    if kind == "texture":
        return read_texture(source.name, side=32)
    return brats.read_folder(source) if kind == "brats" else mvtec.read_pictures(source)


def prepare_stack(args) -> None:
    seen = set()
    if args.seen:
        earlier = pd.read_csv(args.seen)
        seen = set(earlier["group"][earlier["role"] == "test"])
    shares = SHARES if args.shares is None else dict(zip(SHARES, args.shares, strict=True))
    kind, source = (args.beside[0], Path(args.beside[1])) if args.beside else (args.kind, args.source)
    how = Preparation(size=args.size, **HOW[kind] | ({"standardise": False} if args.beside else {}))
    series = (replace(one, testing=False) if one.group in seen else one for one in read(kind, source))
    stack = prepare(series, how, name=kind, seed=SEED, shares=shares)
    if args.beside:
        stack = tested_instead(stack, args)
    stack.save(args.work / f"{args.size}.npz", args.work / f"{args.size}.csv")
    print(stack, f"{len(stack.which('test', anomalous=True))} of them anomalous", how)
    for role in dict.fromkeys(stack.roles.tolist()):
        print(f"{role}: {len(np.unique(stack.groups[stack.roles == role]))} patients, {len(stack.which(role))} normal")


def tested_instead(stack: ImageStack, args) -> ImageStack:
    """The images for testing are those of a second set: all of its patients, who are too few to estimate from."""
    how = Preparation(size=args.size, **HOW[args.kind] | {"standardise": False})
    series = (replace(one, testing=True) for one in read(args.kind, args.source))
    others = prepare(series, how, name=args.kind, seed=SEED, shares=dict.fromkeys(SHARES, 0.0) | {"test": 1.0})
    kept = stack.roles != "test"
    both = {
        key: np.concatenate([getattr(stack, key)[kept], getattr(others, key)])
        for key in ("images", "masks", "within", "names", "groups", "roles")
    }
    train = both["images"][both["roles"] == "train"]
    both["images"] = (both["images"] - train.mean()) / train.std()
    return ImageStack(f"{stack.name}, {others.name}", **both, left_out=others.left_out)


def train_model(args) -> None:
    torch.set_num_threads(1)
    images = mirrored(torch.from_numpy(ImageStack.load(args.work / f"{args.size}.npz").of("train")).float())
    name, started = args.work / f"{args.model}_{args.size}", time.process_time()
    given = {"seed": SEED, "epochs": args.epochs, "checkpoint": name.with_suffix(".checkpoint"), "learning_rate": 1e-3}
    train = autoencoder.train if args.model == "autoencoder" else diffusion.train
    network, curve = train(images, widths=tuple(args.widths), **given)
    network.save_pretrained(name)
    pd.DataFrame(curve).to_csv(name.with_suffix(".csv"), index=False)
    print(len(images), "images", curve[-1], f"{time.process_time() - started:.0f} s of processor time")


def reconstruction(args, stack: ImageStack):
    """The detector's reconstruction. The noises of a diffusion model, drawn once, are a part of it."""
    if args.model == "components":
        return ComponentReconstruction(torch.from_numpy(stack.of("train")), args.components)
    kind = Autoencoder if args.model == "autoencoder" else UNet
    network = restore(kind, args.work / f"{args.model}_{args.size}").double()
    if args.model == "autoencoder":
        return network
    rng = Streams(SEED, "real_images", args.model, 0).selection()
    return Reconstruction(network, draw_noises(rng, stack.images.shape[1:])).eval()


class Experiment:
    """What is fixed before a test image is looked at, and what becomes of one."""

    def __init__(self, args):
        torch.set_num_threads(1)
        self.stack = ImageStack.load(args.work / f"{args.size}.npz")
        self.permutations, self.alternative = args.permutations, args.alternative
        self.setup = set_up(
            self.stack,
            reconstruction(args, self.stack),
            flagged=args.flagged,
            resolution=args.resolution,
            filter_size=args.filter,
            kinds=image_noise.KINDS if args.noise == "best" else (args.noise,),
            scale=args.scale,
            seed=SEED,
        )
        # A network detects in single precision: a detector like any other, and several times as fast.
        # At 128 pixels in colour the exact engine takes 10 s for principal components too.
        self.exact = args.model == "components" and args.size <= 64
        self.detector = self.setup.detector if self.exact else self.setup.detector.in_single_precision()
        print(self.setup, flush=True)

    def image(self, i: int):
        return self.stack.images[i].astype(np.float64)

    def reconstructed(self, x):
        with torch.no_grad():
            return self.setup.detector.score_map.reconstruct(torch.from_numpy(x[None]))[0].numpy()

    def rng(self, what: str, i: int):
        return Streams(SEED, "real_images", what, int(i)).method()

    def selective(self, hypothesis: MaskHypothesis, i: int):
        if self.exact:
            return exact(hypothesis, alternative=self.alternative)
        return lattice(hypothesis, alternative=self.alternative, rng=self.rng("lattice", i), **LATTICE)

    def row(self, i: int) -> dict:
        x, started, setup = self.image(i), time.perf_counter(), self.setup
        found = self.detector.detect(x)
        region = setup.tested(found.mask[None])[0]
        row = {
            "image": self.stack.names[i],
            "patient": self.stack.groups[i],
            "role": self.stack.roles[i],
            "anomalous": self.stack.anomalous[i],
            "detected": region.any(),
            "overlaps": (region & self.stack.masks[i]).any(),
            "pixels": region.sum(),
            "score": found.scores[setup.detector.within].max(),
        }
        if region.any():
            row |= self.tests(i, x, found.mask, region)
        louder = setup.detector.with_threshold(setup.detector.threshold * (1 + TAU**2) ** 0.5)
        given = {"tau": TAU, "rng": self.rng("thinning", i), "alternative": self.alternative}
        half = thinned_test(louder, x, setup.references, setup.model, **given)
        row |= {"thinned": half.p_value, "thinned_overlaps": (half.tested & self.stack.masks[i]).any()}
        return row | {"seconds": time.perf_counter() - started}

    def tests(self, i: int, x, mask, region) -> dict:
        setup = self.setup
        line = contrast(region, x, setup.references, setup.covariance)
        hypothesis = MaskHypothesis(self.detector, x, mask, line, coarse=setup.coarse)
        found = {"statistic": line.statistic}
        log_p = float(
            truncated_pvalue(line.statistic, WHOLE_LINE, null=line.null, alternative=self.alternative, log=True)
        )
        found["naive"] = np.exp(log_p)
        found["bonferroni"] = np.exp(min(0.0, log_p + setup.detector.within.sum() * np.log(2)))
        search = self.selective(hypothesis, i)
        found["selective"], found["evaluations"] = search.p_value, search.n_evaluations
        # Neither is always there: the observation may lie between two linear pieces, permuted pixels may not be marked.
        for name, pvalue in (("wo_pp", self.over_conditioned), ("permutation", self.permuted)):
            if name == "wo_pp" or (self.permutations and self.stack.roles[i] == "test"):
                try:
                    found[name] = pvalue(i, x, mask, line)
                except NumericalError:
                    found[name] = np.nan
        return found

    def over_conditioned(self, _, x, mask, line) -> float:
        hypothesis = MaskHypothesis(self.setup.detector, x, mask, line, coarse=self.setup.coarse)
        return float(
            truncated_pvalue(line.statistic, hypothesis.piece_region(), null=line.null, alternative=self.alternative)
        )

    def permuted(self, i, x, _, line) -> float:
        setup = self.setup
        return permutation_pvalue(
            (self.detector.in_single_precision() if self.exact else self.detector).masks,
            x,
            setup.references,
            lambda m, y, ref: contrast(setup.tested(m[None])[0], y, ref, setup.covariance).statistic,
            line.statistic,
            self.rng("permutation", i),
            permutations=self.permutations,
            patience=PATIENCE,
        )


COLUMNS = (
    "variant image patient role anomalous detected overlaps pixels score statistic naive bonferroni selective "
    "evaluations wo_pp permutation thinned thinned_overlaps seconds"
).split()


def variant_of(args) -> str:
    model = f"components={args.components}" if args.model == "components" else args.model
    return (
        f"{model} size={args.size} b={args.resolution} flagged={args.flagged:g} filter={args.filter} "
        f"noise={args.noise} scale={args.scale}{' greater' * (args.alternative == 'greater')}{args.tag}"
    )


def run(args) -> None:
    path, variant = args.work / "rows.csv", variant_of(args)
    done = set()
    if path.exists():
        rows = pd.read_csv(path)
        done = set(rows["image"][rows["variant"] == variant])
    experiment, started = Experiment(args), time.process_time()
    stack = experiment.stack
    order = np.concatenate([stack.which("calibration"), stack.which("test"), stack.which("test", anomalous=True)])
    order = np.random.default_rng(SEED).permutation(order)  # so that a part of a run is a sample
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not file.tell():
            writer.writeheader()
        for i in order[: args.limit]:
            if stack.names[i] not in done:
                row = {"variant": variant} | experiment.row(i)
                writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
                file.flush()
    print(f"{variant}: {time.process_time() - started:.0f} s of processor time", flush=True)


def run_regions(args) -> None:
    """A row per region that is marked in a test image, each tested given all of them, with Holm's adjusted p-values."""
    experiment, rows = Experiment(args), []
    stack, setup = experiment.stack, experiment.setup
    tests = np.concatenate([stack.which("test"), stack.which("test", anomalous=True)])
    for i in np.random.default_rng(SEED).permutation(tests)[: args.limit]:
        found = setup.test(experiment.image(i), per_region=True)
        for rank, region in enumerate(found.regions):
            rows.append(
                {
                    "variant": variant_of(args),
                    "image": stack.names[i],
                    "patient": stack.groups[i],
                    "anomalous": stack.anomalous[i],
                    "overlaps": (region.tested & stack.masks[i]).any(),
                    "pixels": region.tested.sum(),
                    "statistic": region.statistic,
                    "p_value": region.p_value,
                    "holm": found.holm[rank],
                }
            )
    path = args.work / "regions.csv"
    table = pd.DataFrame(rows)
    if path.exists():
        earlier = pd.read_csv(path)
        table = pd.concat([earlier[earlier["variant"] != variant_of(args)], table])
    table.to_csv(path, index=False, float_format="%.6g")
    shown.report_regions(table[table["variant"] == variant_of(args)])


def draw_panels(args) -> None:
    rows = pd.read_csv(args.work / "rows.csv")
    shown.panels(Experiment(args), rows[rows["variant"] == variant_of(args)], args.to, args.each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    acts = {"prepare": prepare_stack, "train": train_model, "run": run, "regions": run_regions, "panels": draw_panels}
    for name, act in (acts | {"report": shown.report}).items():
        part = parts.add_parser(name)
        part.set_defaults(act=act)
        if name == "prepare":
            part.add_argument("kind", choices=HOW)
            part.add_argument("source", type=Path)
            part.add_argument("--seen", type=Path, help="manifest of a split whose test patients were looked at")
            part.add_argument("--shares", type=float, nargs=5, help=f"of {', '.join(SHARES)}")
            part.add_argument("--beside", nargs=2, help="kind and source of all images that are not for testing")
        part.add_argument("work", type=Path)
        part.add_argument("--size", type=int, default=32)
        if name == "train":
            part.add_argument("--model", choices=("autoencoder", "diffusion"), required=True)
            part.add_argument("--epochs", type=int, default=200)
            part.add_argument("--widths", type=int, nargs="+", default=(8, 16, 32))
        if name in ("run", "regions", "panels"):
            part.add_argument("--model", choices=("autoencoder", "diffusion", "components"), default="components")
            part.add_argument("--resolution", type=int, default=8)
            part.add_argument("--flagged", type=float, default=0.3, help="share of the normal images that is detected")
            part.add_argument("--components", type=int, default=0, help="of the model that has them")
            part.add_argument("--filter", type=int, default=3)
            part.add_argument("--noise", default="best", help=f"best, or one of {', '.join(image_noise.KINDS)}")
            part.add_argument("--scale", default="references", choices=("references", "held-out"))
            part.add_argument("--alternative", default="two-sided", choices=("two-sided", "greater"))
            part.add_argument("--permutations", type=int, default=0)
            part.add_argument("--limit", type=int, help="so many images")
            part.add_argument("--tag", default="", help="added to the name of the variant")
        if name == "panels":
            part.add_argument("--to", type=Path, required=True)
            part.add_argument("--each", type=int, default=2, help="so many best ones, worst ones, ...")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    args.act(args)


if __name__ == "__main__":
    main()
