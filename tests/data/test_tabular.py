"""Tabular sets: reading with clear errors, and a split that keeps estimation, training and testing apart."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sigad.data.tabular import Table, draw, make_table, read_packaged, read_table, split, training_size
from sigad.errors import ConfigurationError, InvalidInputError, MissingDataError
from sigad.knn import knn_test_batch
from sigad.knn.detection import norm, scores


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "StudentID": np.arange(60),
            "weight": rng.normal(size=60),
            "height": rng.normal(size=60) * 10 + 170,
            "count": rng.integers(0, 9, 60),
            "gender": rng.integers(0, 2, 60),
            "town": ["a", "b", "c"] * 20,
            "constant": 3.0,
            "state": ["fine"] * 45 + ["odd"] * 10 + ["broken"] * 5,
        }
    )


def gaussian(n_normal=300, n_odd=40, d=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_normal + n_odd, d)) @ (np.eye(d) + 0.3) * [1, 10, 0.1, 5][:d] + 7
    x[n_normal:, 0] += 12
    return Table("made up", x, np.arange(len(x)) < n_normal, tuple("abcd"[:d]))


class TestMakeTable:
    def test_numeric_columns_without_label_identifiers_indicators_and_constants(self, frame):
        table = make_table("people", frame, label="state", normal="fine")
        assert table.columns == ("weight", "height", "count")
        assert table.x.shape == (60, 3) and table.x.dtype == np.float64
        assert table.normal.dtype == bool and table.normal.sum() == 45
        text = "; ".join(table.notes)
        assert "StudentID" in text and "gender" in text and "constant among normal" in text and "constant" in text

    @pytest.mark.parametrize("name", ["id", "ID", "Id", "user_id", "customerID", "Unnamed: 0", "index"])
    def test_identifiers_by_name(self, frame, name):
        frame[name] = np.random.default_rng(1).normal(size=60)
        assert name not in make_table("people", frame, label="state", normal="fine").columns

    @pytest.mark.parametrize("name", ["acid", "humid", "Fluid", "indexed", "GRID"])
    def test_words_that_end_alike_are_no_identifiers(self, frame, name):
        frame[name] = np.random.default_rng(1).normal(size=60)
        assert name in make_table("people", frame, label="state", normal="fine").columns

    def test_named_columns_in_their_order_even_indicators(self, frame):
        table = make_table("people", frame, columns=["gender", "weight"], label="state", normal=["fine", "odd"])
        assert table.columns == ("gender", "weight") and table.normal.sum() == 55
        np.testing.assert_array_equal(table.x[:, 1], frame["weight"])

    def test_rows_with_missing_or_infinite_values_are_dropped_and_counted(self, frame):
        frame.loc[[3, 4], "weight"] = np.nan
        frame.loc[5, "height"] = np.inf
        frame.loc[6, "state"] = None
        frame.loc[7, "town"] = None  # not used, hence no reason to drop the row
        table = make_table("people", frame, label="state", normal="fine")
        assert len(table) == 56 and np.isfinite(table.x).all()
        assert "4 of 60 rows dropped for missing values" in table.notes

    def test_repeated_normal_instances_are_counted(self, frame):
        doubled = pd.concat([frame, frame.iloc[:4]])
        assert any(
            "4 of 49 normal" in note for note in make_table("people", doubled, label="state", normal="fine").notes
        )

    def test_the_first_label_that_exists(self, frame):
        assert make_table("people", frame, label=["class", "state"], normal=["negative", "fine"]).normal.sum() == 45

    @pytest.mark.parametrize("values", [[0, 1], [0.0, 1.0], [False, True]])
    def test_numeric_labels_compare_as_numbers(self, frame, values):
        frame["state"] = np.where(frame["state"] == "fine", *values)
        assert make_table("people", frame, label="state", normal=0).normal.sum() == 45

    def test_a_wrong_column_lists_those_that_exist(self, frame):
        with pytest.raises(ConfigurationError, match=r"'people'.*wieght.*its columns are: StudentID, weight, height"):
            make_table("people", frame, columns=["wieght", "height"], label="state", normal="fine")
        with pytest.raises(ConfigurationError, match=r"'class'.*label.*its columns are: .*state"):
            make_table("people", frame, label="class", normal="fine")

    def test_a_wrong_normal_value_lists_those_that_exist(self, frame):
        with pytest.raises(ConfigurationError, match=r"'good'.*values of 'state' are: fine, odd, broken"):
            make_table("people", frame, label="state", normal="good")

    def test_other_mistakes_are_named(self, frame):
        with pytest.raises(ConfigurationError, match=r"town are not numeric"):
            make_table("people", frame, columns=["town", "weight"], label="state", normal="fine")
        with pytest.raises(ConfigurationError, match=r"label 'count' cannot be one of the columns"):
            make_table("people", frame, columns=["count", "weight"], label="count", normal=0)
        with pytest.raises(InvalidInputError, match=r"1 numeric columns that vary.*`columns`"):
            make_table("people", frame, columns=["weight", "constant"], label="state", normal="fine")
        with pytest.raises(InvalidInputError, match=r"1 normal instances"):
            make_table("people", frame.iloc[44:], label="state", normal="fine")


class TestFiles:
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_the_separator_is_found(self, frame, tmp_path, separator):
        path = tmp_path / "people.csv"
        frame.to_csv(path, sep=separator, index=False)
        expected = make_table("people", frame, label="state", normal="fine")
        for given in (None, separator):
            table = read_table(path, label="state", normal="fine", separator=given)
            assert table.name == "people" and table.columns == expected.columns
            np.testing.assert_allclose(table.x, expected.x, rtol=1e-15)

    def test_spaces_in_the_header_do_not_mislead(self, tmp_path):
        (tmp_path / "t.csv").write_text("Heart rate bpm,Blood sugar,Result\n1.5,2,no\n2.5,3,no\n3,5,yes\n")
        assert read_table(
            tmp_path / "t.csv", columns=["Heart rate bpm", "Blood sugar"], label="Result", normal="no"
        ).x.shape == (3, 2)

    def test_a_missing_file_and_a_file_that_is_no_table(self, tmp_path):
        with pytest.raises(MissingDataError, match=r"absent\.csv.*put the CSV there"):
            read_table(tmp_path / "absent.csv", label="y", normal=0)
        (tmp_path / "empty.csv").write_text("")
        with pytest.raises(InvalidInputError, match=r"empty\.csv.*separator"):
            read_table(tmp_path / "empty.csv", label="y", normal=0)
        (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81" * 9)
        with pytest.raises((InvalidInputError, ConfigurationError), match="binary"):
            read_table(tmp_path / "binary.csv", label="y", normal=0)

    def test_a_saved_table_comes_back_the_same(self, frame, tmp_path):
        table = make_table("people", frame, label="state", normal="fine")
        table.save(tmp_path / "people.parquet")
        again = Table.load(tmp_path / "people.parquet")
        assert (again.name, again.columns, again.notes) == (table.name, table.columns, table.notes)
        np.testing.assert_array_equal(again.x, table.x)
        np.testing.assert_array_equal(again.normal, table.normal)
        with pytest.raises(MissingDataError, match="absent"):
            Table.load(tmp_path / "absent.parquet")


class TestPackaged:
    def test_scikit_learn_classes_by_name(self):
        table = read_packaged("sklearn.datasets.load_breast_cancer", label="target", normal="benign", name="cancer")
        assert table.name == "cancer" and table.x.shape == (569, 30) and table.normal.sum() == 357

    def test_statsmodels(self):
        table = read_packaged("statsmodels.datasets.fair", label="affairs", normal=0)
        assert table.name == "fair" and table.x.shape == (6366, 8) and table.normal.sum() == 4313

    def test_what_is_not_there(self):
        with pytest.raises(MissingDataError, match=r"no_such_package.*install"):
            read_packaged("no_such_package.datasets.thing", label="y", normal=0)
        for module in ("sklearn.datasets.load_nothing", "wine", "statsmodels.datasets.__name__"):
            with pytest.raises(ConfigurationError, match=r"not a data set.*load_wine"):
                read_packaged(module, label="y", normal=0)


class TestSplit:
    @pytest.mark.parametrize("normal", [99, 100, 101])
    def test_thirds_are_disjoint_and_exhaust_the_normal_instances(self, normal):
        table = gaussian(normal)
        thirds = split(table, np.random.default_rng(0))
        assert sorted(np.concatenate(thirds)) == list(range(normal))
        assert {len(third) for third in thirds} <= {33, 34}
        size = training_size(table, 10**6)
        assert size == min(len(thirds.estimation) // 2, len(thirds.pool))

    def test_a_draw_recomputed_by_hand(self):
        table, candidates = gaussian(), (1, 3, 5)
        result = draw(table, np.random.default_rng(4), n=30, candidates=candidates, quantile=0.9, anomalous=False)
        thirds = split(table, np.random.default_rng(4))
        estimation = table.x[thirds.estimation]
        mean, sd = estimation.mean(axis=0), estimation.std(axis=0, ddof=1)
        z = (estimation - mean) / sd
        np.testing.assert_allclose(result.covariance, np.corrcoef(estimation, rowvar=False), rtol=1e-10)
        distances = norm(z[30:, None] - z[None, :30], "l2")
        own = scores(distances, candidates, 4).max(axis=-1)
        assert (own > result.theta).mean() == pytest.approx(0.1, abs=0.015)
        assert np.isclose(own, result.theta, rtol=1e-12).any()
        assert result.row in thirds.testing
        np.testing.assert_allclose(result.x_test, (table.x[result.row] - mean) / sd)
        pool = (table.x[thirds.pool] - mean) / sd
        assert result.x_train.shape == (30, 4)
        assert (np.abs(result.x_train[:, None] - pool[None]).max(axis=-1).min(axis=-1) < 1e-12).all()

    def test_training_instances_are_distinct_and_the_number_is_what_the_thirds_allow(self):
        result = draw(gaussian(90), np.random.default_rng(0), n=100, candidates=5, quantile=0.9, anomalous=True)
        assert result.x_train.shape == (15, 4) and len(np.unique(result.x_train, axis=0)) == 15

    def test_anomalies_for_power(self):
        table = gaussian()
        rows = {
            draw(table, np.random.default_rng(i), n=20, candidates=3, quantile=0.9, anomalous=True).row
            for i in range(60)
        }
        assert not table.normal[list(rows)].any() and len(rows) > 20

    def test_same_stream_same_draw_whatever_the_units(self):
        table = gaussian()
        scaled = Table("scaled", table.x * [1e-3, 1e3, 1, 2] + 5, table.normal, table.columns)
        first, again, other = (
            draw(t, np.random.default_rng(1), n=20, candidates=[1, 2], quantile=0.9, anomalous=False)
            for t in (table, table, scaled)
        )
        np.testing.assert_array_equal(first.x_test, again.x_test)
        np.testing.assert_allclose(first.x_train, other.x_train, rtol=1e-8, atol=1e-9)
        assert first.theta == pytest.approx(other.theta, rel=1e-9)

    @pytest.mark.parametrize("metric", ["l2", "l1", "linf"])
    def test_the_threshold_is_that_of_the_metric(self, metric):
        table, rng = gaussian(6000), np.random.default_rng
        shares = []
        for i in range(200):
            d = draw(table, rng(i), n=40, candidates=[1, 5], quantile=0.8, anomalous=False, metric=metric)
            shares.append(scores(norm(d.x_test - d.x_train, metric), [1, 5], 4).max() > d.theta)
        assert stats.binomtest(sum(shares), 200, 0.2).pvalue > 1e-3

    def test_a_diagonal_covariance(self):
        result = draw(
            gaussian(), np.random.default_rng(0), n=20, candidates=3, quantile=0.9, anomalous=False, diagonal=True
        )
        np.testing.assert_array_equal(result.covariance, np.eye(4))

    def test_p_values_are_uniform_on_gaussian_data(self):
        draws = [
            draw(
                gaussian(1500, seed=i % 40),
                np.random.default_rng(i),
                n=30,
                candidates=[1, 2, 3],
                quantile=0.5,
                anomalous=False,
            )
            for i in range(1200)
        ]
        result = knn_test_batch(
            np.stack([d.x_test for d in draws]),
            np.stack([d.x_train for d in draws]),
            k=[1, 2, 3],
            threshold=np.array([d.theta for d in draws]),
            covariance=np.stack([d.covariance for d in draws]),
        )
        p = result.p_value[result.status == "tested"]
        assert len(p) > 450 and stats.kstest(p, "uniform").pvalue > 1e-3

    def test_a_set_that_is_too_small_says_so(self):
        with pytest.raises(InvalidInputError, match=r"'made up' is too small.*30 normal.*5 training.*k = 10"):
            draw(gaussian(30), np.random.default_rng(0), n=100, candidates=range(1, 11), quantile=0.9, anomalous=False)
        with pytest.raises(InvalidInputError, match=r"4 instances to estimate a covariance of 4.*a, b, c, d"):
            draw(gaussian(12), np.random.default_rng(0), n=100, candidates=1, quantile=0.9, anomalous=False)

    def test_no_anomalies(self):
        with pytest.raises(InvalidInputError, match=r"no anomalies.*label"):
            draw(gaussian(60, 0), np.random.default_rng(0), n=9, candidates=1, quantile=0.9, anomalous=True)

    def test_a_singular_covariance_names_the_columns(self):
        table = gaussian()
        x = table.x.copy()
        x[:, 3] = x[:, 0] - 2 * x[:, 2]
        with pytest.raises(InvalidInputError, match=r"singular covariance: a, c, d depend.*`columns`"):
            draw(
                Table("t", x, table.normal, table.columns),
                np.random.default_rng(0),
                n=9,
                candidates=1,
                quantile=0.9,
                anomalous=False,
            )
        x[:299, 3], x[299, 3] = 1.0, 2.0
        with pytest.raises(InvalidInputError, match=r"d do not vary in a third"):
            draw(
                Table("t", x, table.normal, table.columns),
                np.random.default_rng(1),
                n=9,
                candidates=1,
                quantile=0.9,
                anomalous=False,
            )

    @pytest.mark.parametrize("wrong", [{"quantile": 1.0}, {"metric": "cosine"}, {"candidates": 0}])
    def test_arguments_out_of_range(self, wrong):
        arguments = dict(n=9, candidates=1, quantile=0.9, anomalous=False) | wrong
        with pytest.raises(InvalidInputError, match=r"quantile|metric|k must"):
            draw(gaussian(), np.random.default_rng(0), **arguments)
