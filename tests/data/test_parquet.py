"""Columns of parquet files from numpy's buffers: what pyarrow's own conversions give."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigad.data.parquet import column, numbers

COLUMNS = [
    (pa.string(), st.text()),
    (pa.bool_(), st.sampled_from([True, False, None])),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
]


@pytest.mark.parametrize("kind, values", COLUMNS, ids=lambda x: str(x) if isinstance(x, pa.DataType) else "")
@given(data=st.data())
def test_columns(kind, values, data):
    given_values = data.draw(st.lists(values, max_size=30))
    assert column(given_values, kind).equals(pa.array(given_values, kind))


@pytest.mark.parametrize("kind, values", COLUMNS[1:], ids=lambda x: str(x) if isinstance(x, pa.DataType) else "")
@given(data=st.data())
def test_numbers(kind, values, data):
    chunks = data.draw(st.lists(st.lists(st.none() | values, max_size=20), max_size=3))
    start, length = data.draw(st.integers(0, 15)), data.draw(st.integers(0, 40))
    whole = pa.chunked_array([pa.array(chunk, kind) for chunk in chunks], kind).slice(start, length)
    found = numbers(whole)
    expected = pc.fill_null(whole, pa.scalar(0).cast(kind)).to_numpy()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
