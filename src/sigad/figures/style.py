"""The style of the figures, the names of what stands in them, and how they are written to files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sigad.optional import needs
from sigad.study import methods

with needs("pipeline"):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "figure.dpi": 150,
    "savefig.dpi": 200,
    "font.size": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
}
NAMES = {
    "n": "number of training instances $n$",
    "d": "dimension $d$",
    "k": "number of neighbours $k$",
    "signal": "signal $\\Delta$",
    "distance": "1-Wasserstein distance",
    "dataset": "data set",
    "components": "principal components",
    "size": "side of the image in pixels",
    "anomaly_size": "side of the anomaly in pixels",
    "variance_images": "independent images from which the variance is estimated",
    "n_evaluations": "linear pieces",
    "seconds": "seconds per p-value",
    "type1": "Type I error rate",
    "power": "power",
}
VALUES = {
    "parametric": "parametric: N(0, I)",
    "clusters": "semi-parametric: clusters",
    "skewnorm": "skew-normal",
    "exponnorm": "exponentially modified normal",
    "gennorm_steep": "generalized normal, steep",
    "gennorm_flat": "generalized normal, flat",
    "t": "Student t",
    "isolation_forest": "isolation forest",
    "local_outlier_factor": "local outlier factor",
    "one_class_svm": "one-class SVM",
    "identity": "$\\Sigma = I$",
    "ar1": "$\\Sigma_{ij} = 0.5^{|i-j|}$",
}
# A method keeps its colour and marker in every figure (Okabe & Ito's palette); others follow in the order they are met.
METHODS = {
    "proposed": ("#D55E00", "o"),
    "lattice": ("#7CAE00", "s"),
    "proposed_any_k": ("#E69F00", "s"),
    "proposed_plugin": ("#F4A582", "o"),
    "neighbourhood": ("#882255", "h"),
    "neighbourhood_plugin": ("#CC99BB", "h"),
    "blocks": ("#44AA99", "h"),
    "lattice_blocks": ("#225555", "8"),
    "wo_pp": ("#0072B2", "D"),
    "opa1": ("#56B4E9", "^"),
    "opa2": ("#332288", "v"),
    "naive": ("#000000", "X"),
    "bonferroni": ("#009E73", "P"),
    "bonferroni_n": ("#117733", "*"),
    "permutation": ("#AA4499", "p"),
    "hotelling_t2": ("#CC79A7", "d"),
    "conformal": ("#88CCEE", "h"),
    "conformal_selective": ("#661100", "H"),
    "conformal_unconditional": ("#999933", "8"),
    "thinning": ("#DDCC77", "d"),
    "unselective_oracle": ("0.35", "<"),
    "uniform": ("0.6", ">"),
}
OTHERS = list(zip(sns.color_palette("colorblind", 10), "osD^vPXd*h", strict=True))


def series_style(series: str, value: str, values: Sequence[str]) -> dict:
    """Label, colour and marker of one line of a figure."""
    # Of the variants of a method, which differ in their parameters, the first has its style.
    first = {v.partition("-")[0]: v for v in reversed(values)} if series == "method" else {}
    known = {first[name]: style for name, style in METHODS.items() if name in first}
    rank = [v for v in values if v not in known].index(value) if value not in known else None
    color, marker = known[value] if rank is None else OTHERS[rank % len(OTHERS)]
    label = methods.label(value) if series == "method" else VALUES.get(value, f"{series} = {value}")
    return {"label": label, "color": color, "marker": marker, "linestyle": ":" if label.startswith("control") else "-"}


def panel_title(name: str, value) -> str:
    """Title of the panel in which the parameter ``name`` has this value."""
    return methods.label(value) if name == "method" else VALUES.get(value, f"${name}$ = {value}")


def save_figure(figure: Figure, *paths: str | Path) -> None:
    """Write a figure to files, without time stamps, and close it."""
    for path in paths:
        figure.savefig(path, metadata={"CreationDate": None} if str(path).endswith(".pdf") else None)
    plt.close(figure)
