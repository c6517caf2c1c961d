"""True null hypotheses about detectors that the exact engine refuses, by the lattice engine: are p-values uniform?

    python benchmarks/validity_lattice.py DETECTOR... [--tests 2000]
    python benchmarks/validity_lattice.py --summary

Rows are appended to results/reference/lattice_<detector>.csv as they come, and a run that was stopped goes on behind
the last one. Each row: the conservative p-value, the randomised one (the observed point's own weight counted by a
uniform share from the trial's stream), and the naive one, which forgets the selection. Data are standard normal noise;
detectors are trained, fitted and calibrated on other noise, the same in every run.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from sigad import Lattice, instance_test, knn_test, localization_test, selective_test
from sigad.inference.lattice import LatticeSearch
from sigad.inference.result import TESTED, TestResult
from sigad.knn.detection import detect_features
from sigad.knn.network import NetworkFeatures
from sigad.localization import Detector
from sigad.models.adapters.anomaly_maps import against_reference, against_rest, marks
from sigad.models.adapters.outliers import flags
from sigad.models.adapters.vision import NoisePredictor
from sigad.models.diffusion.reconstruct import Reconstruction

SEED = 20261
RESULTS = Path(__file__).parents[1] / "results" / "reference"
COLUMNS = ("rep", "statistic", "conservative", "randomised", "naive", "own_weight", "n_evaluations")
Test = Callable[[np.random.Generator, Lattice], TestResult]
"""Draws data whose null hypothesis is true and tests them, if the detector selects something."""


class Recording(Lattice):
    """A lattice engine that keeps what it found last."""

    def __call__(self, *args, **given) -> LatticeSearch:
        Recording.last = super().__call__(*args, **given)
        return Recording.last


def calibration() -> np.random.Generator:
    """Noise that only fits and calibrates detectors."""
    return np.random.default_rng([SEED, 0])


def fitted(module: nn.Module, loss: Callable[[nn.Module], torch.Tensor], steps: int) -> nn.Module:
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(module).backward()
        optimizer.step()
    return module.double().eval()


class Tokens(nn.Module):
    """Features of a transformer: patches of 2 x 2, two layers of softmax attention, layer norm and GELU, mean token."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation="gelu", batch_first=True)
        self.embed, self.encoder = nn.Linear(4, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(self.embed(x.unfold(2, 2, 2).unfold(3, 2, 2).reshape(len(x), -1, 4))).mean(1)


def transformer() -> Test:
    """k nearest neighbours in a transformer's features, against the mean of the nearest."""
    features, rng, k = NetworkFeatures(Tokens().double().eval()), calibration(), 3
    x, x_train = rng.standard_normal((300, 1, 6, 6)), rng.standard_normal((300, 12, 1, 6, 6))
    f_x, f_train = features(x), features(x_train.reshape(-1, 1, 6, 6)).reshape(300, 12, -1)
    scores = detect_features(x.reshape(300, -1), x_train.reshape(300, 12, -1), f_x, f_train, k=k, threshold=0.0).score
    given = {"k": k, "threshold": float(np.median(scores)), "covariance": 1.0, "features": features}

    def test(rng: np.random.Generator, engine: Lattice) -> TestResult:
        x, x_train = rng.standard_normal((1, 6, 6)), rng.standard_normal((12, 1, 6, 6))
        return knn_test(x, x_train, against="neighbourhood", engine=engine, **given)

    return test


def unet() -> Test:
    """Diffusion with the UNet2DModel of diffusers: SiLU, group norm, attention; blocks of 2 x 2 pixels."""
    from sigad.models.diffusion import diffusers_parts  # noqa: F401  (torchvision may need a hand)

    from diffusers import UNet2DModel  # isort: skip

    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    times, alpha = (460, 230, 0), np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))

    def loss(network: nn.Module) -> torch.Tensor:
        time = torch.randint(0, 1000, (64,))
        scale = torch.from_numpy(alpha).float()[time, None, None, None]
        image, noise = torch.randn(2, 64, 1, 8, 8)
        return F.mse_loss(network(scale.sqrt() * image + (1 - scale).sqrt() * noise, time).sample, noise)

    predictor = NoisePredictor(fitted(network.train(), loss, 200))
    rng = calibration()

    def reconstruct(rng: np.random.Generator) -> Reconstruction:
        return Reconstruction(predictor, torch.from_numpy(rng.standard_normal((len(times), 1, 8, 8))), times=times)

    detector = Detector(reconstruct(rng), threshold=0.0)
    threshold = float(np.median(detector.scores(rng.standard_normal((200, 1, 8, 8))).max((1, 2))))

    def test(rng: np.random.Generator, engine: Lattice) -> TestResult:
        x, x_ref = rng.standard_normal((2, 1, 8, 8))
        return localization_test(
            reconstruct(rng), x, x_ref, threshold=threshold, covariance=1.0, resolution=2, engine=engine
        )

    return test


class Embedding(nn.Module):
    """Local features that are smooth: two convolutions and GELU."""

    def __init__(self, channels: int = 8):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.GELU(), nn.Conv2d(channels, channels, 3, padding=1), nn.GELU()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class MemoryBank(nn.Module):
    """PatchCore in small: at each pixel the distance of its features to the nearest in a bank from normal images."""

    def __init__(self, normal: torch.Tensor, size: int):
        super().__init__()
        self.embedding = Embedding().double()
        features = self._features(normal).reshape(-1, 8)
        self.register_buffer("bank", features[torch.randperm(len(features))[:size]].detach())

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(self.embedding(x), 3, 1, 1).movedim(1, -1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self._features(x)
        return torch.cdist(features.reshape(1, -1, 8), self.bank[None])[0].amin(1).reshape(features.shape[:-1])


class StudentTeacher(nn.Module):
    """The squared difference of a student's features from its teacher's, each divided by its length."""

    def __init__(self):
        super().__init__()
        self.teacher, self.student = Embedding().requires_grad_(False), Embedding(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        student, teacher = (F.normalize(network(x), dim=1) for network in (self.student, self.teacher))
        return (student - teacher).square().sum(1)


def image_threshold(model: nn.Module) -> float:
    """The median, over normal images, of the largest value of the map."""
    images = torch.from_numpy(calibration().standard_normal((200, 1, 8, 8)))
    with torch.no_grad():
        return float(model(images).flatten(1).amax(1).median())


def patchcore() -> Test:
    """A memory bank's map, blocks of 2 x 2 pixels, against the rest of the image."""
    model = MemoryBank(torch.from_numpy(calibration().standard_normal((20, 1, 8, 8))), 100).eval()
    detect = marks(model, image_threshold(model), resolution=2)

    def test(rng: np.random.Generator, engine: Lattice) -> TestResult:
        image = torch.from_numpy(rng.standard_normal((1, 8, 8)))
        return selective_test(image, detect, against_rest(image.shape), covariance=1.0, engine=engine)

    return test


def student_teacher() -> Test:
    """A student-teacher map, blocks of 2 x 2 pixels, against a normal reference image."""
    model = fitted(StudentTeacher(), lambda model: model(torch.randn(64, 1, 8, 8)).mean(), 200)
    detect = marks(model, image_threshold(model), resolution=2)

    def test(rng: np.random.Generator, engine: Lattice) -> TestResult:
        pair = torch.from_numpy(rng.standard_normal((2, 1, 8, 8)))
        return selective_test(
            pair, lambda pairs: detect(pairs[:, 0]), against_reference(pair.shape), covariance=1.0, engine=engine
        )

    return test


def isolation_forest() -> Test:
    """A forest fitted to other rows, against the mean of 20 references."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(n_estimators=20, contamination=0.3, random_state=0)
    detect = flags(forest.fit(calibration().standard_normal((256, 5))))

    def test(rng: np.random.Generator, engine: Lattice) -> TestResult:
        x, references = rng.standard_normal(5), rng.standard_normal((20, 5))
        return instance_test(x, references, detect=detect, covariance=1.0, engine=engine)

    return test


DETECTORS = {f.__name__: f for f in (isolation_forest, patchcore, student_teacher, transformer, unet)}


def run(name: str, tests: int, first: int, results: Path) -> None:
    path = results / f"lattice_{name}.csv"
    rows = list(csv.reader(path.open(encoding="utf-8")))[1:] if path.exists() else []
    torch.manual_seed(SEED)
    test, rep = DETECTORS[name](), int(rows[-1][0]) + 1 if rows else first
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not file.tell():
            writer.writerow(COLUMNS)
        done = len(rows)
        while done < tests:
            rng, share = (np.random.default_rng([SEED, 1, rep, stream]) for stream in (0, 1))
            # The search stops when the bounds on the randomised p-value are close, which implies little of the other's.
            result = test(rng, Recording(spacing=0.1, rng=share, batch=96))
            if result.status == TESTED:
                points, t = Recording.last.points, result.statistic
                conservative = points.pvalue_bounds("two-sided")[1]
                naive = 2 * stats.norm.sf(abs(t)) if points.null == "normal" else stats.chi.sf(t, points.null[1])
                values = (t, conservative, result.p_value, naive, Recording.last.own_weight)
                writer.writerow([rep, *(f"{value:.9g}" for value in values), result.n_evaluations])
                file.flush()
                done += 1
            rep += 1


def summary() -> pd.DataFrame:
    """Rates of rejection, distance from uniform, and the largest excess of small p-values, for each kind of p-value."""
    rows = []
    for name in DETECTORS:
        path = RESULTS / f"lattice_{name}.csv"
        if not path.exists():
            continue
        data = pd.read_csv(path)
        for kind in ("conservative", "randomised", "naive"):
            p = data[kind]
            ks, excess = (stats.kstest(p, "uniform", alternative=side) for side in ("two-sided", "greater"))
            rows.append(
                {
                    "detector": name,
                    "p_value": kind,
                    "tests": len(p),
                    "rejected_at_0.05": (p <= 0.05).mean(),
                    "ks_p": ks.pvalue,
                    "excess": excess.statistic,
                    "excess_p": excess.pvalue,
                    "own_weight": data["own_weight"].median(),
                    "n_evaluations": data["n_evaluations"].median(),
                }
            )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detectors", nargs="*", choices=[*DETECTORS, []])
    parser.add_argument("--tests", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="trial to start with, for runs side by side")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of such a run")
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for detector in options.detectors:
        run(detector, options.tests, options.first, options.results)
    if options.summary:
        table = summary()
        table.to_csv(RESULTS / "lattice_summary.csv", index=False, float_format="%.4g", lineterminator="\n")
        print(table.to_string(index=False, float_format="%.4g"))
