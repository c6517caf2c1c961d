"""Does the noise model hold on each data set? What normal instances that nothing else has seen say about it."""

from pathlib import Path

from sigad.figures.diagnosis import plot_diagnosis
from sigad.figures.style import save_figure
from sigad.seeds import Streams
from sigad.study import kinds
from sigad.study.diagnoses import diagnosed, diagnosis_curves, diagnosis_table
from sigad.study.logs import stage_log

with stage_log(snakemake.log[0]) as log:
    params, out, found = snakemake.params, snakemake.output, {}
    for name, experiment, kind, values in params.settings:
        setting = kinds.load(kind).of(values)
        given = setting.load({key: Path(params.results, path) for key, path in setting.inputs(experiment).items()})
        found[name] = diagnosed(setting, Streams(params.seed, "diagnosis", name, 0).data(), given, alpha=params.alpha)
        for against, diagnosis in found[name].items():
            log.info("%s, against the %s: %s", name, against, diagnosis)
    diagnosis_table(found).to_csv(out.table, index=False)
    curves = diagnosis_curves(found)
    curves.to_csv(out.csv, index=False)
    save_figure(plot_diagnosis(curves), out.pdf, out.png)
