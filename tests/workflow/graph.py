"""The jobs of a workflow with their params and what each needs, for a series of changes; a script, in its own process.

    python graph.py FOLDER < changes.json > graphs.json

FOLDER holds a copy of the pipeline. A change is ``{"config": overlay, "append": {path: text}}``; what it appends to a
file is taken away again. A graph maps each job to ``[digest of its params, jobs that it needs]``.
"""

import contextlib
import hashlib
import io
import json
import sys
from pathlib import Path

from snakemake.api import SnakemakeApi
from snakemake.settings.enums import PrintDag
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
    StorageSettings,
)


def graph(folder: Path, overlay: dict) -> dict:
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        flow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(config=overlay),
            storage_settings=StorageSettings(),
            snakefile=folder / "Snakefile",
            workdir=folder,
        )
        with contextlib.redirect_stdout(io.StringIO()):
            flow.dag(DAGSettings(forceall=True, print_dag_as=str(PrintDag.DOT))).printdag()
        dag = flow._workflow.dag
        return {
            name(job): [
                hashlib.sha256(repr(sorted(job.params.items(), key=str)).encode()).hexdigest(),
                sorted(map(name, dag.dependencies[job])),
            ]
            for job in dag.jobs
        }


def name(job) -> str:
    return f"{job.rule.name} {' '.join(map(str, job.output))}"


@contextlib.contextmanager
def appended(folder: Path, texts: dict):
    """Texts at the end of files, for a while."""
    from sigad.study import provenance

    before = {path: (folder / path).read_bytes() for path in texts}
    for path, text in texts.items():
        (folder / path).write_bytes(before[path] + text.encode())
    if texts:
        provenance._read.cache_clear()
    yield
    for path, content in before.items():
        (folder / path).write_bytes(content)
    if texts:
        provenance._read.cache_clear()


def main(folder: Path) -> None:
    graphs = []
    for change in json.load(sys.stdin):
        with appended(folder, change.get("append", {})):
            graphs.append(graph(folder, change.get("config", {})))
    json.dump(graphs, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
