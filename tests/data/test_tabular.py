"""Tabular sets: reading with clear errors, and a split that keeps estimation, training and testing apart."""

import numpy as np
import pandas as pd
import pytest

from sigad.data.table import Table, split
from sigad.data.tabular import make_table, read_packaged, read_table
from sigad.errors import ConfigurationError, InvalidInputError, MissingDataError


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

    def test_every_column_left_out_is_named_with_the_reason(self, frame):
        notes = make_table("people", frame, label="state", normal="fine").notes
        assert "identifiers left out: StudentID" in notes and "indicators left out: gender" in notes
        assert "columns that are not numeric left out: town" in notes

    def test_a_column_of_numbers_with_some_text_is_an_error(self, frame):
        frame["weight"] = [str(value) for value in frame["weight"][:-2]] + ["?", "n/k"]
        with pytest.raises(InvalidInputError, match=r"'weight' holds numbers but for 2 of 60 cells \('\?', 'n/k'\)"):
            make_table("people", frame, label="state", normal="fine")
        assert make_table("people", frame, columns=["height", "count"], label="state", normal="fine").x.shape[1] == 2

    @pytest.mark.parametrize("value", [1e308, -1e200])
    def test_values_whose_squares_overflow_name_their_column(self, frame, value):
        frame.loc[3, "height"] = value
        with pytest.raises(InvalidInputError, match=r"'people': height holds values beyond 1e\+150"):
            make_table("people", frame, label="state", normal="fine")

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
    def test_parts_are_disjoint_and_exhaust_the_normal_instances(self, normal):
        table = gaussian(normal)
        parts = split(table, np.random.default_rng(0))
        assert sorted(np.concatenate(parts)) == list(range(normal))
        assert {len(part) for part in parts} <= {19, 20, 21}
