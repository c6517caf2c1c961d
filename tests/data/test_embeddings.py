"""Embeddings of patches: what belongs to which image and position, and files that notice damage."""

import numpy as np
import pytest
from scipy import stats

from sigad.data.embeddings import Embeddings
from sigad.data.images import ImageSet
from sigad.errors import InvalidInputError, MissingDataError


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, size=(6, 3, 8, 12)).astype(np.uint8)
    normal = np.array([True, True, False, True, False, True])
    defect = np.zeros((6, 2, 3), np.float32)
    defect[2, 0, 1], defect[2, 1, 2], defect[4, 0, 1], defect[4, 0, 0] = 0.5, 0.3, 0.9, 0.1
    return ImageSet("made up", pixels, normal, defect, 4, tuple("abcdef"))


def means(patches):
    return patches.mean(axis=(2, 3))


def test_a_table_holds_the_normal_images_and_the_anomalies_of_a_position(images):
    embeddings = Embeddings.of(images, means)
    assert embeddings.values.shape == (2, 3, 6, 3)
    for position, kept in (((0, 1), range(6)), ((1, 2), (0, 1, 2, 3, 5)), ((0, 0), (0, 1, 3, 5))):
        table = embeddings.table(position)
        np.testing.assert_allclose(table.x, means(images.patches(list(kept), position)), rtol=1e-6)
        np.testing.assert_array_equal(table.normal, images.normal[list(kept)])


def test_every_anomaly_and_every_position_is_as_likely(images):
    embeddings, rng = Embeddings.of(images, means), np.random.default_rng(1)
    anomalous = [embeddings.position(rng, anomalous=True) for _ in range(900)]
    # Two of the three anomalies are at one position; p below 1e-4 has that probability.
    assert stats.binomtest(anomalous.count((0, 1)), 900, 2 / 3).pvalue > 1e-4
    assert set(anomalous) == {(0, 1), (1, 2)}
    assert len({embeddings.position(rng, anomalous=False) for _ in range(200)}) == 6
    none = Embeddings("none", embeddings.values, embeddings.normal, np.zeros_like(embeddings.anomalous))
    with pytest.raises(InvalidInputError, match="no defective patches"):
        none.position(rng, anomalous=True)


def test_files(images, tmp_path):
    embeddings = Embeddings.of(images, means)
    embeddings.save(tmp_path / "a" / "b")
    back = Embeddings.load(tmp_path / "a" / "b")
    assert back.name == "made up"
    for name in ("values", "normal", "anomalous"):
        np.testing.assert_array_equal(getattr(back, name), getattr(embeddings, name))
    with pytest.raises(MissingDataError, match="embeds the images"):
        Embeddings.load(tmp_path / "c")
    path = tmp_path / "a" / "b" / "values.npy"
    path.write_bytes(path.read_bytes()[:-4] + bytes(4))
    with pytest.raises(InvalidInputError, match="altered"):
        Embeddings.load(tmp_path / "a" / "b")
