"""The bind network by itself."""

import pytest
import torch
from torch.nn import functional as F

from ibllm_tools.bind import BindNetwork


def test_it_is_a_projection_and_residual_swiglu_blocks():
    network = BindNetwork(6, 8, n_blocks=2)
    x = torch.randn(5, 6)
    expected = x @ network.proj.weight.T + network.proj.bias
    for block in network.blocks:
        scale = (expected.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()
        normed = expected * scale * block.norm.weight
        inner = F.silu(normed @ block.gate.weight.T) * (normed @ block.up.weight.T)
        expected = expected + inner @ block.down.weight.T
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize(("legacy", "n_vectors"), [(False, 1), (True, 7)])
def test_only_the_legacy_form_has_biases_and_a_norm_that_centres(legacy, n_vectors):
    block = BindNetwork(4, 8, n_blocks=1, legacy=legacy).blocks[0]
    names = [name for name, parameter in block.named_parameters() if parameter.ndim == 1]
    assert sorted(names) == (
        ["down.bias", "gate.bias", "norm.bias", "norm.weight", "up.bias"]
        if legacy
        else ["norm.weight"]
    )
    x = torch.randn(n_vectors, 8) + 3
    assert bool((block.norm(x).mean(-1).abs() < 1e-5).all()) is legacy


def test_the_hidden_width_is_four_times_the_width_unless_given():
    assert BindNetwork(4, 8).blocks[0].gate.out_features == 32
    assert BindNetwork(4, 8, hidden_dim=12).blocks[0].gate.out_features == 12


def test_rows_do_not_depend_on_each_other():
    network, x = BindNetwork(6, 8), torch.randn(4, 6)
    torch.testing.assert_close(network(x)[2], network(x[2]))
