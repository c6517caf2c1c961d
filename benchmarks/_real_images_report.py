"""What the runs on real images amount to: counts and rates with intervals, and pictures of the best and the worst."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sigad.inference.conformal import detection_conditional
from sigad.study.rates import clopper_pearson

ALPHA, DRAWS, SEED = 0.05, 2000, 20251
OWN = ("naive", "bonferroni", "permutation", "wo_pp", "selective", "thinned")
CONFORMAL = {
    "conformal, T": lambda table: -(table["statistic"] if _is_greater(table) else table["statistic"].abs()),
    "conformal, score": lambda table: -table["score"],
    "conformalised": lambda table: table["selective"],
}
GROUPED = ", by patient"
METHODS = (*OWN, *CONFORMAL, *(kind + GROUPED for kind in CONFORMAL))


def _is_greater(table: pd.DataFrame) -> bool:
    """Whether only brighter regions count; otherwise the size of T does."""
    return table["variant"].str.contains(" greater").all()


def interval(hits: int, of: int) -> str:
    """A share with its exact 95% interval."""
    if not of:
        return "-"
    low, high = clopper_pearson(hits, of)
    return f"{hits / of:.2f} [{low:.2f}, {high:.2f}]"


def by_patient(rejected, patients) -> str:
    """A 95% interval for the share that is rejected, patients drawn again."""
    table = pd.DataFrame({"rejected": np.asarray(rejected), "patient": np.asarray(patients)})
    table = table.groupby("patient")["rejected"].agg(["sum", "size"])
    if not len(table):
        return "-"
    rng = np.random.default_rng(SEED)
    drawn = table.to_numpy()[rng.integers(0, len(table), (DRAWS, len(table)))].sum(1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return f"({low:.2f}, {high:.2f})"


def pvalues(method: str, table: pd.DataFrame, calibration: pd.DataFrame) -> np.ndarray:
    """The p-values of a method for the detected images of a table."""
    kind = method.removesuffix(GROUPED)
    if kind in CONFORMAL:
        score, groups = CONFORMAL[kind], calibration["patient"] if kind != method else None
        given = {"extreme": "small", "calibration_groups": groups}
        return detection_conditional(score(table), score(calibration), **given).p_value
    return table[method].to_numpy(float)


def report(args) -> None:
    rows, rates = pd.read_csv(args.work / "rows.csv"), []
    for variant, part in rows.groupby("variant", sort=False):
        calibration = part[(part["role"] == "calibration") & part["detected"]]
        tests = part[part["role"] == "test"]
        normals, anomalies = tests[~tests["anomalous"]], tests[tests["anomalous"]]
        print(f"\n### {variant}")
        print(
            f"detected: {normals['detected'].sum()} of {len(normals)} normal, {normals['patient'].nunique()} patients; "
            f"{anomalies['detected'].sum()} of {len(anomalies)} anomalous ({anomalies['overlaps'].sum()} where the "
            f"anomaly is), {len(calibration)} of {calibration['patient'].nunique()} patients for calibration; root "
            f"mean square of T: {np.sqrt(np.square(normals['statistic']).mean()):.2f}; "
            f"{part['seconds'].mean():.2f} s and {part['evaluations'].mean():.0f} evaluations on average"
        )
        print("| method | Type I | by patient | power, of detected where it is | by patient | power, of all |")
        print("| --- | --- | --- | --- | --- | --- |")
        for method in METHODS:
            if method in OWN and not part[method].notna().any():
                continue
            detected, where = ("thinned", "thinned_overlaps") if method == "thinned" else ("detected", "overlaps")
            false = normals[normals[detected].notna() & (normals[detected] != 0)]
            true = anomalies[anomalies[where].astype(bool)]
            if method in OWN:  # w/o-pp and permutations are not defined for every image
                false, true = (table[table[method].notna()] for table in (false, true))
            rejected = [pvalues(method, chosen, calibration) <= ALPHA for chosen in (false, true)]
            a, b = (part.sum() for part in rejected)
            print(
                f"| {method} | {interval(a, len(false))} | {by_patient(rejected[0], false['patient'])} | "
                f"{interval(b, len(true))} | {by_patient(rejected[1], true['patient'])} | "
                f"{interval(b, len(anomalies))} |"
            )
            rates.append((variant, method, a, len(false), b, len(true), len(normals), len(anomalies)))
    columns = "variant method false_rejections normals_detected rejections anomalies_detected normals anomalies".split()
    pd.DataFrame(rates, columns=columns).to_csv(args.work / "rates.csv", index=False)


def report_regions(regions: pd.DataFrame) -> None:
    """Regions of images: those that Holm rejects, of normal images and of anomalous ones."""
    normal = regions[~regions["anomalous"]].groupby("image").agg({"holm": "min", "patient": "first"})
    met = regions[regions["anomalous"] & regions["overlaps"]]
    others = regions[regions["anomalous"] & ~regions["overlaps"]]
    for title, table in (
        ("normal images with a rejected region (Holm)", normal),
        ("regions that meet the anomaly, rejected (Holm)", met),
        ("other regions of these images, rejected (Holm)", others),
    ):
        rejected = table["holm"] <= ALPHA
        print(f"{title}: {interval(rejected.sum(), len(table))} by patient {by_patient(rejected, table['patient'])}")


def panels(experiment, rows: pd.DataFrame, path, each: int) -> None:
    """The anomalies with the smallest and the largest p-values, the largest that were missed, and the normal images
    with the smallest p-values: image with the annotation, reconstruction, scores with what was tested, p-values."""
    stack, setup = experiment.stack, experiment.setup
    number = {name: i for i, name in enumerate(stack.names.tolist())}
    tests, calibration = rows[rows["role"] == "test"], rows[(rows["role"] == "calibration") & rows["detected"]]
    met = tests[tests["anomalous"] & tests["overlaps"]].sort_values("selective", kind="stable")
    missed = tests[tests["anomalous"] & ~tests["overlaps"]]
    size = [-stack.masks[number[name]].sum() for name in missed["image"]]
    missed = missed.iloc[np.argsort(size, kind="stable")]
    alarms = tests[~tests["anomalous"] & tests["detected"]].sort_values("selective", kind="stable")
    chosen = [
        (title, row)
        for title, table in (("best", met), ("worst", met[::-1]), ("missed", missed), ("normal", alarms))
        for _, row in table.drop_duplicates("patient").head(each).iterrows()
    ]
    figure = Figure(figsize=(8.6, 2.0 * len(chosen)), layout="constrained")
    low, high = np.quantile(stack.of("train"), [0.005, 0.995])
    for axes, (title, row) in zip(figure.subplots(len(chosen), 4, squeeze=False), chosen, strict=True):
        x = experiment.image(number[row["image"]])
        found = setup.detector.detect(x)
        tested = setup.tested(found.mask[None])[0]
        again = experiment.reconstructed(x)
        for place, picture in zip(axes, (x.mean(0), again.mean(0)), strict=False):
            place.imshow(picture, cmap="gray", vmin=low, vmax=high)
        axes[2].imshow(np.where(setup.detector.within, found.scores, 0), cmap="magma", vmin=0)
        _outline(axes[0], stack.masks[number[row["image"]]], "#56B4E9")
        for place in axes[::2][:2]:
            _outline(place, tested, "#E69F00")
        for place in axes:
            place.set(xticks=[], yticks=[])
        axes[0].set_ylabel(title)
        axes[3].axis("off")
        table = pd.DataFrame([row])
        lines = [f"{stack.name}, {row['patient']}"]
        if row["detected"]:
            shown = [m for m in (*OWN, *CONFORMAL) if m in CONFORMAL or pd.notna(row[m])]
            lines += [f"{m}: p = {float(pvalues(m, table, calibration)[0]):.2g}" for m in shown]
        else:
            lines.append("nothing marked")
        axes[3].text(0, 0.98, "\n".join(lines), va="top", fontsize=7, transform=axes[3].transAxes)
    for place, title in zip(figure.axes, ("image", "reconstruction", "score"), strict=False):
        place.set_title(title, fontsize=8)
    figure.savefig(path, dpi=90)


def _outline(place, mask, color) -> None:
    if mask.any():
        rows, columns = np.arange(-1, mask.shape[0] + 1), np.arange(-1, mask.shape[1] + 1)
        place.contour(columns, rows, np.pad(mask, 1), levels=[0.5], colors=[color], linewidths=1.2)
