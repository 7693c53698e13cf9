"""Columns of vector files, whatever their type."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from cityheads.labels.columns import numbers

number_texts = st.one_of(
    st.floats(allow_nan=False).map(str), st.integers().map(str), st.text(max_size=6), st.just(" 12 ")
)


@settings(max_examples=100, deadline=None)
@given(st.lists(number_texts, max_size=8))
def test_numbers_are_pythons(texts: list[str]) -> None:
    values, unreadable = numbers(pa.chunked_array([pa.array(texts, pa.string())]))
    wrong = 0
    for text, value in zip(texts, values, strict=True):
        if not text.strip():
            assert np.isnan(value)
        elif re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text.strip(), re.ASCII):
            assert value == float(text)
        else:
            wrong += 1
            assert np.isnan(value)
    assert unreadable == wrong
