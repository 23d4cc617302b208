"""`wavecity bench attention` at a small size: equal output, all figures, JSON-ready."""

import json

import pytest

from wavecity.flows.bench import attention
from wavecity.geo.errors import InputError


def test_all_figures_are_there_and_outputs_are_equal(monkeypatch):
    monkeypatch.setattr(attention, "GRIDS", ((4, 5, 3), (5, 6, 4)))
    monkeypatch.setattr(attention, "apart", lambda function, *arguments: function(*arguments))
    result = json.loads(json.dumps(attention.run(attention.Options(tokens=200, rounds=1))))
    assert result["tokens"] == 120
    assert result["difference"] < 1e-5
    assert result["difference_gradient"] < 1e-4
    for side in attention.SIDES:
        for figure in ("seconds_forward", "seconds_both", "memory_mb"):
            for tokens in (60, 120):
                assert result[f"{figure}_{side}_{tokens}"] > 0
    expected = result["seconds_both_dense_120"] / result["seconds_both_sparse_top_k_120"]
    assert result["speedup_both_top_k"] == pytest.approx(expected)
    assert result["memory_ratio_masked"] > 0


def test_too_few_tokens_are_wrong_input():
    with pytest.raises(InputError, match="--tokens 100: the smallest grid has 512"):
        attention.run(attention.Options(tokens=100))
