"""What enters from outside, everywhere: an argument that is wrong is named before anything is selected, and results
can be kept."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sigad import check, instance_test, knn_test, localization_test, selective_test
from sigad.errors import DetectorError, InvalidInputError, UnsupportedOperationError
from sigad.inference.lattice import Lattice, Refinement
from sigad.inference.result import Decision
from sigad.knn import NormalModel, detect, knn_test_batch
from sigad.knn.network import NetworkFeatures
from sigad.localization.thinning import thinned_localization_test
from sigad.models.diffusion.training import train

RNG = np.random.default_rng(0)
IMAGE, REFERENCE = RNG.normal(size=(2, 1, 6, 6))
X, TRAIN, ROWS = RNG.normal(size=4), RNG.normal(size=(9, 4)), RNG.normal(size=(40, 3))


class Returns(nn.Module):
    """ReLU, handed over in some wrapping."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap
        self.eval()

    def forward(self, x):
        return self.wrap(torch.relu(x))


WRAPPED = [lambda y: (y,), lambda y: {"y": y}, lambda y: None, lambda y: y.numpy(), lambda y: 1.0]


def localize(**changes):
    given = dict(reconstruct=nn.ReLU().eval(), x=IMAGE, x_ref=REFERENCE, threshold=0.5, covariance=1.0)
    return localization_test(**(given | changes))


def knn(**changes):
    given = dict(k=2, threshold=-3.0, covariance=1.0) | changes
    return knn_test(given.pop("x_test", X), given.pop("x_train", TRAIN), **given)


def masked(x):
    return np.ma.masked_greater(x, 0.5)


BAD_ARRAYS = [masked, lambda x: x + 1j, lambda x: x * np.nan, lambda x: x.astype(str)]


@pytest.mark.parametrize("bad", BAD_ARRAYS)
def test_no_mask_no_imaginary_part_and_no_nan_is_lost_anywhere(bad):
    network = NetworkFeatures(nn.ReLU().eval())
    calls = [
        lambda: knn(x_test=bad(X)),
        lambda: knn(x_train=bad(TRAIN)),
        lambda: knn(covariance=bad(np.eye(4))),
        lambda: knn(features=bad(np.eye(4))),
        lambda: knn(features=network, x_test=bad(X)),
        lambda: knn(features=network, x_train=bad(TRAIN)),
        lambda: knn(features=network, train_features=bad(network(TRAIN))),
        lambda: knn(features=network, covariance=bad(np.eye(4)), threshold=99.0),
        lambda: network(bad(TRAIN)),
        lambda: network.approximate(bad(TRAIN)),
        lambda: knn_test_batch(bad(TRAIN), TRAIN + 1, k=2, threshold=0.0, covariance=1.0),
        lambda: knn_test_batch(TRAIN, TRAIN + 1, k=2, threshold=bad(np.ones(9)), covariance=1.0),
        lambda: detect(bad(TRAIN), TRAIN, k=1, threshold=0.0),
        lambda: localize(x=bad(IMAGE)),
        lambda: localize(x_ref=bad(REFERENCE)),
        lambda: localize(covariance=bad(np.eye(36))),
        lambda: localize(covariance=bad(np.ones(36)), threshold=99.0),
        lambda: train(bad(np.ones((4, 1, 8, 8))), seed=0, epochs=1),
    ]
    for i, call in enumerate(calls):
        with pytest.raises(InvalidInputError):
            call()
            pytest.fail(f"call {i} returned")


@pytest.mark.parametrize("threshold", [0.5, 1e9])
@pytest.mark.parametrize(
    "wrong",
    [
        *(dict(reconstruct=Returns(wrap)) for wrap in WRAPPED),
        dict(x=IMAGE[None]),
        dict(alternative="both"),
        dict(level=2.0),
        dict(level="high"),
        dict(tolerance="small"),
        dict(covariance=np.diag([-1.0] + [1.0] * 35)),
        dict(covariance=np.eye(36) + 2 * np.eye(36, k=1) + 2 * np.eye(36, k=-1)),  # indefinite
        dict(filter_size=1.5),
        dict(filter_size="3"),
        dict(memory_budget="all"),
        dict(dtype=torch.float16),
        dict(engine="fast"),
    ],
)
def test_localization_names_what_is_wrong_whether_or_not_something_is_marked(wrong, threshold):
    with pytest.raises(InvalidInputError):
        localize(threshold=threshold, **wrong)


def test_an_image_of_a_batch_of_one_is_told_what_to_do():
    with pytest.raises(InvalidInputError, match="pass one image at a time"):
        localize(x=IMAGE[None])


@pytest.mark.parametrize("features", [None, nn.ReLU().eval()])
@pytest.mark.parametrize("threshold", [-3.0, 1e9])
@pytest.mark.parametrize(
    "wrong",
    [
        dict(k=np.inf),
        dict(k="2"),
        dict(k=None),
        dict(metric="cosine"),
        dict(covariance=-1.0),
        dict(covariance=np.diag([1.0, 1, 1, -1])),
        dict(tolerance=-1.0),
        dict(train_features=np.zeros((9, 3))),
        dict(engine="fast"),
        dict(against="all"),
    ],
)
def test_knn_names_what_is_wrong_whether_or_not_something_is_selected(wrong, threshold, features):
    with pytest.raises(InvalidInputError):
        knn(threshold=threshold, features=features, **wrong)


@pytest.mark.parametrize("threshold", ["high", None, np.nan, 1j, [1.0], np.ma.masked])
def test_thresholds(threshold):
    for features in (None, nn.ReLU().eval()):
        with pytest.raises(InvalidInputError, match="threshold"):
            knn(threshold=threshold, features=features)
    with pytest.raises(InvalidInputError, match="threshold"):
        localize(threshold=threshold)


@pytest.mark.parametrize("wrap", WRAPPED)
def test_a_network_that_returns_no_tensor(wrap):
    with pytest.raises(InvalidInputError, match="as a tensor"):
        knn(features=Returns(wrap))


@pytest.mark.parametrize("threshold", [-3.0, 1e9])
@pytest.mark.parametrize("against", ["neighbour", 2])
def test_an_unsupported_network_is_an_error_whether_or_not_something_is_selected(against, threshold):
    with pytest.raises(UnsupportedOperationError, match=r"sigmoid.*lattice"):
        knn(features=nn.Sigmoid().eval(), threshold=threshold, against=against)


@pytest.mark.parametrize("features", [None, nn.ReLU().eval()])
def test_whole_numbers_of_any_kind(features):
    one, several = knn(k=2, features=features), knn(k=[1, 3], features=features)
    for k in (np.int64(2), np.array(2), np.array([2]), torch.tensor(2), range(2, 3), 2.0):
        assert knn(k=k, features=features).p_value == one.p_value
    for k in (range(1, 4, 2), np.array([1, 3]), torch.tensor([3, 1]), (np.int32(1), np.uint8(3))):
        assert knn(k=k, features=features).p_value == several.p_value


def test_images_for_training_may_be_an_array():
    array = RNG.normal(size=(4, 1, 8, 8))
    first, second = (train(images, seed=0, epochs=1, widths=(4, 4))[1] for images in (array, torch.from_numpy(array)))
    assert first[0].loss == second[0].loss


def test_a_covariance_may_be_asymmetric_by_rounding():
    for n, run in ((4, knn), (36, localize)):
        covariance = np.eye(n)
        covariance[0, 1] += 4e-16
        assert run(covariance=covariance).p_value == pytest.approx(run().p_value, rel=1e-9)
        covariance[0, 1] = 1e-3
        with pytest.raises(InvalidInputError, match="symmetric"):
            run(covariance=covariance)


def test_results_can_be_kept_and_compared():
    results = [
        knn(),
        knn(threshold=9.0),
        knn(features=nn.ReLU().eval()),
        knn(against=2),
        knn_test_batch(np.stack([X, TRAIN[0]]), TRAIN, k=2, threshold=-3.0, covariance=1.0),
        localize(),
        localize(threshold=99.0),
        localize(per_region=True),
    ]
    for i, result in enumerate(results):
        assert pickle.loads(pickle.dumps(result)) == result == copy.deepcopy(result)
        assert all((result == other) == (i == j) for j, other in enumerate(results))


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: knn(condition_on_k="maybe"), "condition_on_k"),
        (lambda: knn(condition_on_k="False"), "condition_on_k"),
        (lambda: knn(condition_on_k=None), "condition_on_k"),
        (lambda: knn(condition_on_k="maybe", features=nn.ReLU().eval()), "condition_on_k"),
        (lambda: knn(against=None), "against"),
        (lambda: knn(against=True), "against"),
        (lambda: knn(against=[1, 2]), "against"),
        (lambda: knn(engine="Exact"), "engine"),
        (lambda: knn(engine=None, features=nn.ReLU().eval()), "engine"),
        (lambda: knn(tolerance=Decision(5.0)), "level"),
        (lambda: knn(metric=np.ones(2)), "metric"),
        (lambda: knn(features=np.empty((0, 4))), "features"),
        (lambda: check(nn.ReLU(), 16), "shape"),
        (lambda: check(nn.ReLU(), (1, -8, 8)), "shape"),
        (lambda: NormalModel.fit(ROWS, components="many"), "components"),
        (lambda: NormalModel.fit(ROWS, components=2.5), "components"),
        (lambda: NormalModel.fit(ROWS, against="mean"), "against"),
        (lambda: NormalModel.fit(ROWS, against=99), "against"),
        (lambda: NormalModel.fit(ROWS, quantile="0.9"), "quantile"),
        (lambda: NormalModel.fit(ROWS, seed=-1), "seed"),
        (lambda: localize(resolution=[[1], [1, 2]]), "resolution"),
        (lambda: localize(within=np.zeros((6, 6), bool)), "within"),
        (lambda: localize(per_region="no"), "per_region"),
        (lambda: localize(per_region=1), "per_region"),
        (lambda: localize(exhaustive="no"), "exhaustive"),
        (lambda: localize(engine="exhaustive"), "engine"),
        (lambda: localize(alternative="bigger"), "alternative"),
        (lambda: localize(level="0.9"), "level"),
        (lambda: thinned(alternative="bigger"), "alternative"),
        (lambda: thinned(level=1.5), "level"),
        (lambda: select(alternative="bigger"), "alternative"),
        (lambda: select(level="0.9"), "level"),
        (lambda: select(engine=Lattice(refinement=Refinement(1.5))), "levels"),
        (lambda: select(engine=Lattice(refinement=(2, 30))), "refinement"),
        (lambda: select(engine=Lattice(batch=0.5)), "batch"),
        (lambda: select(engine=Lattice(spacing="fine")), "spacing"),
        (lambda: Lattice(spacing=None), "spacing"),
        (lambda: Lattice(cell=0.0), "cell"),
        (lambda: Lattice(rng=0), "rng"),
        (lambda: thinned(rng=0), "rng"),
        (lambda: thinned(rng=np.random), "rng"),
        (lambda: flagged(nearest=2.5), "nearest"),
        (lambda: flagged(nearest="2"), "nearest"),
    ],
)
def test_an_option_that_is_none_of_the_documented_is_named(call, argument):
    with pytest.raises(InvalidInputError, match=argument):
        call()


@pytest.mark.parametrize("engine", ["exact", "lattice"])
def test_a_module_that_fails_is_named_with_the_shape_that_it_got(engine):
    with pytest.raises(DetectorError, match=r"\(1, 1, 6, 6\): RuntimeError"):
        localize(reconstruct=nn.Conv2d(3, 3, 1).eval(), engine=engine)
    with pytest.raises(DetectorError, match=r", 4\): RuntimeError"):
        knn(features=nn.Linear(3, 2).eval(), engine=engine)


def thinned(**changes):
    how = dict(threshold=9.0, covariance=1.0, tau=1.0, rng=np.random.default_rng(0))
    return thinned_localization_test(nn.ReLU().eval(), IMAGE, REFERENCE, **(how | changes))


def select(**changes):
    # Nothing is detected: arguments are checked all the same.
    return selective_test(X, lambda batch: batch > 0, lambda chosen: None, covariance=1.0, **changes)


def flagged(**changes):
    return instance_test(X, TRAIN, detect=lambda batch: batch[:, 0] > 9, covariance=1.0, **changes)
