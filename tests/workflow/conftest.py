"""A copy of the pipeline in a temporary folder, and a way to run Snakemake in it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PARTS = ["Snakefile", "config", "workflow", "envs", "profiles", "src"]

# Small enough for a few seconds, with one experiment for each way of drawing.
TINY = {
    "pathvars": {"results": "results", "logs": "logs", "benchmarks": "benchmarks"},
    "repetitions": 100,
    "chunk_size": 50,
    "calibration": 200,
    "experiments": {
        "rates": {
            "kind": "knn_synthetic",
            "measure": "type1",
            "methods": ["proposed", "naive", "uniform"],
            "settings": {"quantile": 0.5, "d": 3},
            "grid": {"n": [20]},
            "plot": {"type": "rates", "x": "n", "caption": "A test."},
        },
    },
}
OTHERS = {
    "tables": {
        "kind": "knn_tabular",
        "measure": "type1",
        "methods": ["proposed", "proposed_plugin", "neighbourhood", "neighbourhood_plugin"],
        "grid": {"dataset": "enabled"},
        "plot": {"type": "rates", "x": "dataset", "caption": "A test."},
    },
    "uniformity": {
        "kind": "knn_synthetic",
        "measure": "type1",
        "methods": ["proposed"],
        "settings": {"quantile": 0.5, "d": 3},
        "grid": {"n": [20]},
        "plot": {"type": "uniformity", "caption": "A test."},
    },
}


class Pipeline:
    """Snakemake in a folder of its own, on a configuration of its own."""

    def __init__(self, folder: Path, config: dict):
        self.folder = folder
        for part in PARTS:
            source = ROOT / part
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(
                source, folder / part, **({"ignore": shutil.ignore_patterns("__pycache__")} if source.is_dir() else {})
            )
        # The experiments of the test replace those of the paper; everything else stays as it is.
        paper = yaml.safe_load((folder / "config" / "config.yaml").read_text())
        self.write({**paper, **config})

    def write(self, config: dict) -> None:
        (self.folder / "config" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def write_datasets(self, manifest: dict) -> None:
        (self.folder / "config" / "datasets.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--cores", "2", *map(str, arguments)]

    def environment(self) -> dict:
        return {**os.environ, "HOME": str(self.folder / "home"), "XDG_CACHE_HOME": str(self.folder / "cache")}

    def run(self, *arguments: str, fails: bool = False) -> str:
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=600,
        )
        output = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, output[-5000:]
        return output

    def planned(self, *arguments: str) -> dict[str, int]:
        """Jobs of a dry run, by rule."""
        output = self.run("--dry-run", *arguments)
        if "Nothing to be done" in output:
            return {}
        lines = output[output.index("Job stats:") :].splitlines()[3:]
        counts = {}
        for line in lines:
            if not line.strip():
                break
            rule, count = line.split()
            counts[rule] = int(count)
        counts.pop("total")
        return counts

    def copy(self, folder: Path) -> "Pipeline":
        """The same, with all that it computed, in another folder."""
        shutil.copytree(self.folder, folder, symlinks=True)
        other = object.__new__(Pipeline)
        other.folder = folder
        return other

    def overlay(self, config: dict) -> list[str]:
        """Arguments that replace values of the configuration."""
        (self.folder / "overlay.yaml").write_text(yaml.safe_dump(config))
        return ["--configfile", "overlay.yaml"]

    @contextlib.contextmanager
    def killing(self, stage: str | None):
        """Kill a stage of this pipeline as soon as it runs, as often as it runs."""
        if stage is None:
            yield
            return
        done = threading.Event()

        def kill():
            while not done.wait(0.05):
                for process in Path("/proc").glob("[0-9]*"):
                    with contextlib.suppress(OSError):
                        ours = process.joinpath("cwd").resolve() == self.folder.resolve()
                        if ours and f".{stage}.py" in process.joinpath("cmdline").read_text():
                            os.kill(int(process.name), signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.folder.glob(pattern))


@pytest.fixture
def pipeline(tmp_path):
    """A pipeline with one small experiment."""
    return Pipeline(tmp_path, TINY)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A pipeline with one small experiment of each kind, run to the end. Tests may not change what it computed."""
    config = {**TINY, "experiments": {**TINY["experiments"], **OTHERS}}
    pipeline = Pipeline(tmp_path_factory.mktemp("finished"), config)
    pipeline.output = pipeline.run()
    return pipeline
