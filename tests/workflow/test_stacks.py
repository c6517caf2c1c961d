"""Whole images in the workflow: volumes are prepared, detectors are trained on them, and images are tested."""

import numpy as np
import pandas as pd
import pytest

from sigad.data import lgg
from tests.data.volumes import write_lgg
from tests.workflow.conftest import TINY, Pipeline

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("stacks")]

TRAINED = {
    "kind": "localization_images",
    "measure": "type1",
    "methods": ["naive"],
    "settings": {"dataset": "heads", "size": 16, "flagged": 0.5, "resolution": 4},
    "grid": {"detector": ["autoencoder", "diffusion"]},
    "plot": {"type": "rates", "x": "detector", "caption": "A test."},
}
HOW = {"batch_size": 32, "learning_rate": 1e-3, "widths": [4, 8]}
CONFIG = {
    **TINY,
    "repetitions": 20,
    "detectors": {"autoencoder": {"epochs": 3, **HOW}, "diffusion": {"epochs": 2, **HOW}},
    "experiments": {"trained": TRAINED},
}
HEADS = {
    "source": "lgg",
    "folder": "heads",
    "prepare": {"levels": [0.1, 0.9], "brain": "found", "align": True, "intensity": "robust", "standardise": True},
    "shares": {"train": 0.3, "noise": 0.2, "calibration": 0.1, "reference": 0.2, "test": 0.2},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Heads made for the test, two detectors trained on them, and images of patients of which these saw none."""
    pipeline, rng = Pipeline(tmp_path_factory.mktemp("stacks"), CONFIG), np.random.default_rng(0)
    for i in range(20):
        write_lgg(pipeline.folder / "heads", f"TCGA_CS_49{i:02d}_19960909", rng, slices=6, tumours=(4,))
    pipeline.write_datasets({"tabular": {}, "stacks": {"heads": HEADS}})
    pipeline.run("results/figures/trained.csv")
    return pipeline


def test_detectors_are_trained_and_used(trained):
    rates = pd.read_csv(trained.folder / "results/figures/trained.csv")
    assert set(rates["detector"]) == {"autoencoder", "diffusion"}
    assert (rates["n_trials"] == 20).all() and (rates["n_tested"] > 0).all()
    for detector, epochs in (("autoencoder", 3), ("diffusion", 2)):
        name = f"heads_size=16_{detector}"
        assert (trained.folder / "results/detectors" / name / "config.json").is_file()
        assert len(pd.read_csv(trained.folder / f"results/training/{name}.csv")) == epochs
        assert (trained.folder / f"results/training/{name}.png").stat().st_size > 1000
        assert f"{epochs} epochs" in (trained.folder / f"logs/train_detector/{name}.log").read_text()
    assert not trained.files("results/training/*.checkpoint")
    manifest = pd.read_csv(trained.folder / "results/stacks/heads_size=16.csv")
    assert manifest.loc[manifest["role"] != "", "group"].nunique() == 20


def test_what_a_detector_is_trained_from_is_known(trained):
    target = "results/figures/trained.csv"
    assert "Nothing to be done" in trained.run(target)
    longer = {"detectors": {"autoencoder": {"epochs": 4}}}
    assert trained.planned(target, *trained.overlay(longer)) == {"train_detector": 1, "test_naive": 1, "plot_rates": 1}


def test_scans_are_fetched_with_the_credentials_of_the_environment(tmp_path, monkeypatch):
    """From Kaggle, as kagglehub documents it: a call with a handle that returns a folder."""
    fake, run = tmp_path / "fake", tmp_path / "run"
    run.mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        write_lgg(fake / "kept/kaggle_3m", f"TCGA_CS_49{i:02d}_19960909", rng, slices=6, tumours=(4,))
    text = f"def dataset_download(slug):\n    assert slug == {lgg.SLUG!r}\n    return {str(fake / 'kept')!r}\n"
    (fake / "kagglehub.py").write_text(text)
    experiment = {**TRAINED, "settings": {**TRAINED["settings"], "dataset": "lgg"}}
    pipeline = Pipeline(run, {**CONFIG, "experiments": {"trained": experiment}})
    pipeline.write_datasets({"tabular": {}, "stacks": {"lgg": {**HEADS, "folder": None}}})
    target = "results/stacks/lgg_size=16.npz"
    monkeypatch.delenv("KAGGLE_API_TOKEN", raising=False)
    assert "Kaggle" in pipeline.run(target, fails=True)
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", str(fake))
    assert pipeline.planned(target) == {"download_scans": 1, "prepare_stack": 1}
    pipeline.run(target)
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    assert "Nothing to be done" in pipeline.run(target)
    assert "secret" not in "".join(path.read_text() for path in pipeline.files("logs/**/*.log"))


def test_a_new_patient_is_noticed(trained, tmp_path):
    pipeline = trained.copy(tmp_path / "copy")
    write_lgg(pipeline.folder / "heads", "TCGA_CS_5000_19960909", np.random.default_rng(1), slices=6)
    planned = pipeline.planned("results/figures/trained.csv")
    assert planned == {"prepare_stack": 1, "train_detector": 2, "test_naive": 1, "plot_rates": 1}
