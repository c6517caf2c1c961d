"""Detectors of PyOD and scikit-learn, as they are. PyOD's tests are skipped where it is not installed (extra
"pyod")."""

import numpy as np
import pytest
from scipy import stats
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.svm import OneClassSVM

from sigad import Lattice, instance_test
from sigad.errors import InvalidInputError, NumericalError
from sigad.models.adapters.outliers import flags, refits

D = 4
OF_SKLEARN = {
    "isolation forest": IsolationForest(n_estimators=20, random_state=0, contamination=0.2),
    "local outlier factor": LocalOutlierFactor(10, novelty=True, contamination=0.2),
    "one-class svm": OneClassSVM(nu=0.2),
    "elliptic envelope": EllipticEnvelope(random_state=0, contamination=0.2),
}


def rows(seed, n):
    return np.random.default_rng(seed).standard_normal((n, D))


@pytest.mark.parametrize("name", OF_SKLEARN)
def test_scikit_learn(name):
    detector = OF_SKLEARN[name].fit(rows(0, 200))
    x = rows(1, 1)[0] + 3
    result = instance_test(x, rows(2, 30), detect=flags(detector), covariance=1.0)
    assert result.status == "tested" and result.p_value < 0.05 and result.n_evaluations < 500
    assert instance_test(np.zeros(D), rows(2, 30), detect=flags(detector), covariance=1.0).status == "not_selected"


def test_an_isolation_forest_under_the_null_hypothesis():
    """KS of the randomised p-values, fixed seed, error probability 1e-3; fitted elsewhere, and to the references."""
    forest = IsolationForest(n_estimators=15, random_state=0, contamination=0.5)
    rng = np.random.default_rng(3)
    engine = Lattice(spacing=0.2, rng=rng)
    fitted = flags(forest.fit(rows(0, 100)))
    p = [instance_test(x, rows(9, 20), detect=fitted, covariance=1.0, engine=engine) for x in rows(1, 120)]
    assert len({result.status for result in p}) == 2
    # The references vary too: given only x, the signals of fixed references would not be equal to its own.
    draws = ((rows(1000 + i, 1)[0], rows(5000 + i, 20)) for i in range(250))
    p = [instance_test(x, normal, detect=fitted, covariance=1.0, engine=engine).p_value for x, normal in draws]
    p = np.array(p)[np.isfinite(p)]
    assert len(p) > 60 and stats.kstest(p, "uniform").pvalue > 1e-3


def test_fitted_anew_to_the_references():
    result = instance_test(
        rows(1, 1)[0] + 3,
        rows(2, 25),
        fit=refits(IsolationForest(n_estimators=5, random_state=0)),
        covariance=1.0,
        nearest=5,
        engine=Lattice(spacing=0.5),
    )
    assert result.status == "tested" and len(result.selection.indices) == 5 and result.p_value < 0.3


def test_what_is_no_outlier_detector():
    for other in (KNeighborsClassifier(), LocalOutlierFactor(), object()):
        with pytest.raises(InvalidInputError, match="decision_function"):
            flags(other)


PYOD = ["knn.KNN", "lof.LOF", "iforest.IForest", "pca.PCA", "ecod.ECOD", "copod.COPOD", "hbos.HBOS", "ocsvm.OCSVM"]


@pytest.mark.parametrize("name", [*PYOD, "mcd.MCD", "loda.LODA", "cblof.CBLOF"])
def test_pyod(name):
    pytest.importorskip("pyod", reason="pyod is not installed: pip install 'sigad[pyod]'")
    module, kind = name.split(".")
    make = getattr(__import__(f"pyod.models.{module}", fromlist=[kind]), kind)
    seeded = {"random_state": 0} if kind in ("IForest", "MCD", "CBLOF") else {}
    detector = make(contamination=0.1, **seeded).fit(rows(0, 200))
    x, references = rows(1, 1)[0] + 4, rows(2, 30)
    of_the_batch = kind in ("ECOD", "COPOD")
    if of_the_batch:
        # The batch is scored with its own distribution. Where that changes an answer, it is refused.
        with pytest.raises(NumericalError, match="independent of what else is in the batch"):
            for shift in (1.5, 2.0, 2.5, 3.0):
                instance_test(rows(1, 1)[0] + shift, references, detect=flags(detector), covariance=1.0)
    result = instance_test(x, references, detect=flags(detector, alone=of_the_batch), covariance=1.0)
    assert result.status == "tested" and result.p_value < 0.1 and 0 < result.own_weight < 0.5
