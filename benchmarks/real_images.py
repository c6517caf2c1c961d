"""Real images: Type I on held-out normal slices and power on tumours or defects, by patient, for what is tried.

    python benchmarks/real_images.py prepare lgg SOURCE WORK --size 32
    python benchmarks/real_images.py train WORK --size 32 --model autoencoder --epochs 200
    python benchmarks/real_images.py run WORK --size 32 --model autoencoder --resolution 4 --flagged 0.3
    python benchmarks/real_images.py report WORK

SOURCE is a folder of TCGA-LGG (or its .npz), of BraTS-like volumes (brats) or of a category of MVTec AD (mvtec); WORK a
folder for what is made. A run appends a row per image to WORK/rows.csv, and goes on behind the last one; a report reads
all rows and writes the counts to WORK/rates.csv. The threshold and the noise come from the patients for noise, regions
for its scale from the patients for the reference, the conformal scores from those for calibration: nothing that tests
has seen the test patients.
"""

import argparse
import csv
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import beta, norm

from sigad.data import brats, image_noise, lgg, mvtec
from sigad.data.stack import ImageStack, Preparation, prepare
from sigad.inference.conformal import detection_conditional
from sigad.inference.lattice import Refinement, lattice
from sigad.localization.coarse import parse_resolution
from sigad.localization.contrast import contrast
from sigad.localization.detector import Detector
from sigad.localization.hypothesis import MaskHypothesis
from sigad.localization.thinning import thinned_localization_test
from sigad.models import autoencoder
from sigad.models.autoencoder import Autoencoder
from sigad.models.components import ComponentReconstruction
from sigad.models.diffusion import training as diffusion
from sigad.models.diffusion.reconstruct import Reconstruction, draw_noises
from sigad.models.diffusion.unet import PiecewiseLinearUNet
from sigad.models.fitting import mirrored
from sigad.seeds import Streams

SEED, ALPHA = 20251, 0.05
SHARES = {"train": 0.3, "noise": 0.12, "calibration": 0.22, "reference": 0.08, "test": 0.28}
BRAIN = {"align": True, "intensity": "robust", "clip": 4.0, "standardise": True}
HOW = {
    "lgg": {"levels": (0.5, 0.95), "brain": "found", **BRAIN},
    "brats": {"levels": (0.4, 0.8), "per_group": 12, "brain": "given", **BRAIN},
    "mvtec": {"standardise": True},
}
TAU = 0.5
LATTICE = {"spacing": 0.1, "refinement": Refinement(2, 20)}


def read(kind: str, source: Path):
    if kind == "lgg":
        return lgg.read_npz(source) if source.suffix == ".npz" else lgg.read_folder(source)
    return brats.read_folder(source) if kind == "brats" else mvtec.read_pictures(source)


def prepare_stack(args) -> None:
    changes = {"intensity": args.intensity} if args.intensity else {}
    changes |= {"brain": args.brain} if args.brain else {}
    how = Preparation(size=args.size, **HOW[args.kind] | changes)
    stack = prepare(read(args.kind, args.source), how, name=args.kind, seed=SEED, shares=SHARES)
    stack.save(args.work / f"{args.size}.npz", args.work / f"{args.size}.csv")
    print(stack, how)


def train_model(args) -> None:
    torch.set_num_threads(1)
    images = mirrored(torch.from_numpy(ImageStack.load(args.work / f"{args.size}.npz").of("train")).float())
    name = args.work / f"{args.model}_{args.size}"
    given = {"seed": SEED, "epochs": args.epochs, "checkpoint": name.with_suffix(".checkpoint"), "learning_rate": 1e-3}
    if args.model == "autoencoder":
        network, curve = autoencoder.train(images, **given)
    else:
        network, curve = diffusion.train(images, widths=(16, 32, 64, 128), **given)
    network.save_pretrained(name)
    pd.DataFrame(curve).to_csv(name.with_suffix(".csv"), index=False)
    print(curve[-1])


class Experiment:
    """What is fixed before a test image is looked at."""

    def __init__(self, args):
        self.stack = ImageStack.load(args.work / f"{args.size}.npz")
        self.model, self.shape = args.model, self.stack.images.shape[1:]
        if args.model == "components":
            self.network = ComponentReconstruction(torch.from_numpy(self.stack.of("train")), args.components)
        else:
            folder = args.work / f"{args.model}_{args.size}"
            kind = Autoencoder if args.model == "autoencoder" else PiecewiseLinearUNet
            self.network = kind.from_pretrained(folder, low_cpu_mem_usage=False).double().eval()
        self.filter_size = args.filter
        self.within, self.coarse = self.stack.common(), parse_resolution(args.resolution)
        noise, reference = (self.stack.which(role) for role in ("noise", "reference"))
        self.threshold = 0.0
        highest = [self.detector(i).scores(self.image(i)[None])[0][self.within].max() for i in noise]
        self.threshold = float(np.quantile(highest, 1 - args.flagged))
        groups = self.stack.groups
        self.references = np.stack(
            [self.stack.images[reference[groups[reference] == g]].mean(0, dtype=float) for g in set(groups[reference])]
        )
        regions = [self.tested(self.detector(i).masks(self.image(i)[None])) for i in reference]
        regions = np.array([region for region in regions if region.any()])
        kinds = image_noise.KINDS if args.noise == "best" else (args.noise,)
        self.covariance, tried = image_noise.choose(
            self.stack.of("noise"), groups[noise], regions, seed=SEED, kinds=kinds
        )
        for name, one in tried.items():
            print(f"noise {name}: log-likelihood {one.log_likelihood:.3f}, spread {one.spread:.2f}")
        print(f"threshold {self.threshold:.3f}, {len(regions)} regions, scale {self.covariance.scale:.2f}")

    def image(self, i: int):
        return self.stack.images[i].astype(np.float64)

    def detector(self, i: int) -> Detector:
        """The detector of image i: a diffusion model has noises of its own for each."""
        reconstruct = self.network
        if self.model == "diffusion":
            rng = Streams(SEED, "real_images", self.model, int(i)).selection()
            reconstruct = Reconstruction(self.network, draw_noises(rng, self.shape)).eval()
        return Detector(reconstruct, threshold=self.threshold, filter_size=self.filter_size, within=self.within)

    def tested(self, mask):
        return self.coarse.tested(mask)[0] & self.within

    def row(self, i: int) -> dict:
        x, detector, started = self.image(i), self.detector(i), time.perf_counter()
        found = detector.detect(x)
        region = self.tested(found.mask[None])
        row = {
            "image": self.stack.names[i],
            "patient": self.stack.groups[i],
            "role": self.stack.roles[i],
            "anomalous": self.stack.anomalous[i],
            "detected": region.any(),
            "overlaps": (region & self.stack.masks[i]).any(),
            "pixels": region.sum(),
            "score": found.scores[self.within].max(),
        }
        if region.any():
            line = contrast(region, x, self.references, self.covariance)
            hypothesis = MaskHypothesis(detector, x, found.mask, line, coarse=self.coarse)
            search = lattice(hypothesis, rng=Streams(SEED, "real_images", "lattice", int(i)).method(), **LATTICE)
            row |= {"statistic": line.statistic, "naive": 2 * norm.sf(abs(line.statistic)), "lattice": search.p_value}
            row |= {"own_weight": search.own_weight, "points": search.n_points, "evaluations": search.n_evaluations}
        half = thinned_localization_test(
            detector.score_map.reconstruct,
            x,
            self.references,
            threshold=self.threshold,
            covariance=self.covariance,
            tau=TAU,
            rng=Streams(SEED, "real_images", "thinning", int(i)).method(),
            filter_size=self.filter_size,
            within=self.within,
        )
        row |= {"thinned": half.p_value, "thinned_overlaps": (half.tested & self.stack.masks[i]).any()}
        row["seconds"] = time.perf_counter() - started
        return row


COLUMNS = (
    "variant image patient role anomalous detected overlaps pixels score statistic naive lattice own_weight points "
    "evaluations thinned thinned_overlaps seconds"
).split()


def run(args) -> None:
    torch.set_num_threads(1)
    experiment, path = Experiment(args), args.work / "rows.csv"
    model = f"components={args.components}" if args.model == "components" else args.model
    variant = f"{model} size={args.size} b={args.resolution} flagged={args.flagged:g} filter={args.filter} "
    variant += f"noise={args.noise}{args.tag}"
    done = set()
    if path.exists():
        rows = pd.read_csv(path)
        done = set(rows["image"][rows["variant"] == variant])
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


def interval(hits: int, of: int) -> str:
    """A share with its exact 95% interval (Clopper and Pearson)."""
    if not of:
        return "-"
    low, high = (
        beta.ppf(0.025, hits, of - hits + 1) if hits else 0,
        beta.ppf(0.975, hits + 1, of - hits) if hits < of else 1,
    )
    return f"{hits / of:.2f} [{low:.2f}, {high:.2f}]"


def by_patient(rejected, patients) -> str:
    """A 95% interval for the share that is rejected, patients drawn again."""
    table = (
        pd.DataFrame({"rejected": rejected, "patient": patients}).groupby("patient")["rejected"].agg(["sum", "size"])
    )
    if not len(table):
        return "-"
    rng = np.random.default_rng(SEED)
    drawn = table.to_numpy()[rng.integers(0, len(table), (2000, len(table)))].sum(1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return f"({low:.2f}, {high:.2f})"


def report(args) -> None:
    rows, rates = pd.read_csv(args.work / "rows.csv"), []
    for variant, part in rows.groupby("variant", sort=False):
        calibration = part[(part["role"] == "calibration") & part["detected"]]
        tests = part[(part["role"] == "test")]
        normals, anomalies = tests[~tests["anomalous"]], tests[tests["anomalous"]]
        print(f"\n### {variant}")
        print(
            f"detected: {normals['detected'].sum()} of {len(normals)} normal, {anomalies['detected'].sum()} of "
            f"{len(anomalies)} anomalous ({anomalies['overlaps'].sum()} where the anomaly is), {len(calibration)} for "
            f"calibration; statistic of detected normals: root mean square "
            f"{np.sqrt(np.square(normals['statistic']).mean()):.2f}"
        )
        score = lambda t: {"|T|": -t["statistic"].abs(), "score": -t["score"], "lattice": t["lattice"]}  # noqa: E731
        print("| method | Type I | by patient | power, of detected where it is | by patient | power, of all |")
        print("| --- | --- | --- | --- | --- | --- |")
        for method in ("naive", "lattice", "thinned", "conformal |T|", "conformal score", "conformal lattice"):
            rejected = []
            detected, where = ("thinned", "thinned_overlaps") if method == "thinned" else ("detected", "overlaps")
            chosen = normals[normals[detected].notna() & (normals[detected] != 0)], anomalies[anomalies[where]]
            for which in chosen:
                if method.startswith("conformal"):
                    key = method.split(" ")[1]
                    p = detection_conditional(score(which)[key], score(calibration)[key], extreme="small").p_value
                else:
                    p = which[method].to_numpy()
                rejected.append((p <= ALPHA, which["patient"]))
            (false, a), (true, b) = rejected
            counts = (false.sum(), len(false), true.sum(), len(true), len(normals), len(anomalies))
            rates.append((variant, method, *counts))
            print(
                f"| {method} | {interval(false.sum(), len(false))} | {by_patient(false, a)} | "
                f"{interval(true.sum(), len(true))} | {by_patient(true, b)} | {interval(true.sum(), len(anomalies))} |"
            )
    columns = "variant method false_rejections normals_detected rejections anomalies_detected normals anomalies".split()
    pd.DataFrame(rates, columns=columns).to_csv(args.work / "rates.csv", index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    for name, act in (("prepare", prepare_stack), ("train", train_model), ("run", run), ("report", report)):
        part = parts.add_parser(name)
        part.set_defaults(act=act)
        if name == "prepare":
            part.add_argument("kind", choices=HOW)
            part.add_argument("source", type=Path)
            part.add_argument("--intensity")
            part.add_argument("--brain")
        part.add_argument("work", type=Path)
        part.add_argument("--size", type=int, default=32)
        if name in ("train", "run"):
            trained = ("autoencoder", "diffusion")
            part.add_argument("--model", choices=trained if name == "train" else (*trained, "components"))
        if name == "train":
            part.add_argument("--epochs", type=int, default=200)
        if name == "run":
            part.add_argument("--resolution", type=int, default=4)
            part.add_argument("--flagged", type=float, default=0.3, help="share of the normal images that is detected")
            part.add_argument("--components", type=int, default=0, help="of the model that has them")
            part.add_argument("--filter", type=int, default=3)
            part.add_argument("--noise", default="best", help=f"best, or one of {', '.join(image_noise.KINDS)}")
            part.add_argument("--limit", type=int, help="so many images")
            part.add_argument("--tag", default="", help="added to the name of the variant")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    args.act(args)


if __name__ == "__main__":
    main()
