"""The attention functions that add an injection."""

import threading

import pytest
import torch
from conftest import stored_names
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from ibllm_tools.injection import (
    AdapterTokens,
    WordOffsets,
    adapter_tokens,
    expand_rows,
    gated_values,
)
from ibllm_tools.llm import use_injecting_attention

N_LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 3, 4, 2, 8, 50


def tiny_llm(implementation="sdpa", kind=LlamaForCausalLM, config=LlamaConfig):
    torch.manual_seed(0)
    llm = kind(
        config(
            vocab_size=VOCABULARY,
            hidden_size=HEADS * HEAD_DIM,
            intermediate_size=48,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            head_dim=HEAD_DIM,
            initializer_range=0.2,
        )
    ).eval()
    use_injecting_attention(llm, implementation)
    return llm


def values(n_layers=N_LAYERS, n_rows=2):
    return torch.randn(n_layers, n_rows, 1, HEADS, HEAD_DIM)


@pytest.fixture
def tokens():
    return torch.randint(0, VOCABULARY, (2, 6))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@torch.no_grad()
def test_without_an_injection_it_is_the_stock_attention(tokens, implementation):
    llm = tiny_llm(implementation)
    found = llm(tokens).logits
    llm.set_attn_implementation(implementation)
    assert torch.equal(found, llm(tokens).logits)


@torch.no_grad()
def test_sdpa_and_eager_agree_under_injection(tokens):
    injection, mask = values(), torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    results = [
        tiny_llm(name)(tokens, attention_mask=mask, injection=injection).logits
        for name in ("sdpa", "eager")
    ]
    torch.testing.assert_close(results[0][mask.bool()], results[1][mask.bool()])


@torch.no_grad()
def test_it_is_added_before_the_output_projection_of_the_last_layers(tokens):
    llm, injection = tiny_llm(), values(n_layers=1)
    found = llm(tokens, injection=injection, output_hidden_states=True).hidden_states
    plain = llm(tokens, output_hidden_states=True).hidden_states
    for layer in range(N_LAYERS):  # hidden_states[N] is after the final norm
        assert torch.equal(found[layer], plain[layer])
    last = llm.model.layers[-1]
    x = plain[N_LAYERS - 1]
    cos_sin = llm.model.rotary_emb(x, torch.arange(x.shape[1])[None])
    attended = last.self_attn(last.input_layernorm(x), cos_sin, None)[0]
    attended = attended + last.self_attn.o_proj(injection[0].flatten(-2))
    x = x + attended
    x = llm.model.norm(x + last.mlp(last.post_attention_layernorm(x)))
    torch.testing.assert_close(found[-1], x)


@torch.no_grad()
def test_rows_get_their_own_and_a_zero_row_gets_nothing(tokens):
    llm, injection = tiny_llm(), values()
    injection[:, 1] = 0
    both, plain = llm(tokens, injection=injection).logits, llm(tokens).logits
    assert torch.equal(both[1], plain[1])
    alone = llm(tokens[:1], injection=injection[:, :1]).logits
    torch.testing.assert_close(both[:1], alone)
    assert not torch.allclose(both[0], plain[0])


@torch.no_grad()
def test_a_list_of_layers_and_one_row_for_all_are_taken(tokens):
    llm, injection = tiny_llm(), values(n_rows=1)
    expected = llm(tokens, injection=injection.expand(-1, 2, -1, -1, -1)).logits
    assert torch.equal(llm(tokens, injection=list(injection)).logits, expected)


@torch.no_grad()
def test_threads_that_share_a_model_do_not_mix_injections(tokens):
    llm = tiny_llm()
    injections = [values() for _ in range(8)]
    expected = [llm(tokens, injection=injection).logits for injection in injections]
    wrong = []

    def work(index):
        with torch.no_grad():
            found = [llm(tokens, injection=injections[index]).logits for _ in range(10)]
        wrong.extend(index for logits in found if not torch.equal(logits, expected[index]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_gated_values_repeat_heads_of_a_group_and_close_rows():
    tokens = torch.randn(2, 3, 5)
    projections = [torch.nn.Linear(5, KV_HEADS * HEAD_DIM) for _ in range(2)]
    gates = torch.tensor([[0.0, 1.0, -2.0, 0.5], [3.0, 0.0, 0.1, 0.2]])
    open_rows = torch.tensor([True, False, True])
    found = gated_values(tokens, projections, gates, HEAD_DIM, open_rows)
    assert found.shape == (2, 3, 1, HEADS, HEAD_DIM)
    assert found[:, 1].abs().sum() == 0
    value = projections[0](tokens[0, 2]).view(KV_HEADS, HEAD_DIM)
    torch.testing.assert_close(found[0, 2, 0, 2], torch.tanh(gates[0, 2]) * value[1])
    assert found[0, 2, 0, 0].abs().sum() == 0  # its gate is closed


def test_an_infinite_value_in_a_closed_row_stays_out():
    tokens = torch.full((1, 1, 5), torch.inf)
    found = gated_values(
        tokens, [torch.nn.Linear(5, 8)], torch.ones(1, 1), HEAD_DIM, torch.tensor([False])
    )
    assert torch.equal(found, torch.zeros_like(found))


@pytest.mark.parametrize(
    ("kind", "config"), [(LlamaForCausalLM, LlamaConfig), (Qwen3ForCausalLM, Qwen3Config)]
)
@torch.no_grad()
def test_a_longer_adapter_of_equal_tokens_is_a_one_token_adapter(tokens, kind, config):
    llm = tiny_llm(kind=kind, config=config)
    adapter = torch.randn(N_LAYERS, 2, 32)
    gates = torch.randn(N_LAYERS, HEADS)
    keys = [layer.self_attn.k_proj for layer in llm.model.layers]
    projections = [layer.self_attn.v_proj for layer in llm.model.layers]
    one = gated_values(adapter, projections, gates, HEAD_DIM)
    several = adapter[:, :, None].expand(-1, -1, 3, -1)
    many = adapter_tokens(several, keys, projections, gates, HEAD_DIM)
    torch.testing.assert_close(
        llm(tokens, injection=many).logits, llm(tokens, injection=one).logits
    )
    closed = adapter_tokens(
        several, keys, projections, gates, HEAD_DIM, torch.tensor([False, True])
    )
    found = llm(tokens, injection=closed).logits
    assert torch.equal(found[0], llm(tokens).logits[0])
    assert not torch.allclose(found[1], llm(tokens).logits[1])


def test_expanding_repeats_rows_side_by_side():
    injection = values()
    assert torch.equal(expand_rows(injection, 3)[:, 2], injection[:, 0])
    assert torch.equal(expand_rows(list(injection), 3)[1][3], injection[1, 1])
    words = expand_rows(WordOffsets(torch.arange(4.0).view(1, 4, 1, 1)), 2)
    assert words.offsets.flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    adapter = AdapterTokens(
        torch.randn(1, 2, 4, 3, 8),
        torch.randn(1, 2, 4, 3, 8),
        torch.zeros(1, 4),
        torch.tensor([True, False]),
    )
    wide = expand_rows(adapter, 2)
    assert wide.open_rows.tolist() == [True, True, False, False]
    assert torch.equal(wide.keys[:, 3], adapter.keys[:, 1])


# One block of the released code, with adapters of length 0, 1 and 3.


UNIT = "imagebind_llm_tiny/attention_unit.safetensors"
UNIT_OUT = "out.attention.adapter"
UNIT_LENGTHS = sorted(
    int(name.removeprefix(UNIT_OUT))
    for name in stored_names(UNIT, f"{UNIT_OUT}0", f"{UNIT_OUT}1")
    if name.startswith(UNIT_OUT)
)


@pytest.fixture(scope="module")
def unit(golden):
    return golden.tensors(UNIT)


def released_block(unit, norm_eps):
    """The block as the only layer of a Llama, with its low-rank products and biases."""
    from ibllm_tools.llm import add_deltas
    from ibllm_tools.model.released import llama_name, reorder

    dim = unit["input"].shape[-1]
    n_heads = unit["weights.attention.gate"].shape[1]
    llm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4,
            hidden_size=dim,
            intermediate_size=unit["weights.feed_forward.w1.weight"].shape[0],
            num_hidden_layers=1,
            num_attention_heads=n_heads,
            rms_norm_eps=norm_eps,
        )
    ).eval()
    use_injecting_attention(llm)
    add_deltas(llm, unit["weights.attention.lora_wq_l1.weight"].shape[0])
    state = {}
    for key in list(unit):
        if key.startswith("weights.") and not key.endswith("gate"):
            name = f"layers.0.{key.removeprefix('weights.')}"
            ours = llama_name(name)
            owner, _, last = ours.rpartition(".")
            if last == "weight" and "norm" not in owner:
                ours = f"{owner}.base.weight"
            state[ours] = reorder(name, unit[key], llm.config)
    missing, unexpected = llm.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("embed" in key or "lm_head" in key or key == "model.norm.weight" for key in missing)
    return llm


@pytest.mark.golden
@pytest.mark.parametrize("length", UNIT_LENGTHS)
@torch.no_grad()
def test_a_block_of_the_released_code(golden, unit, length):
    params = golden.json("imagebind_llm_tiny/full_query/config.json")["params_json"]
    llm = released_block(unit, params["norm_eps"])
    layer, x = llm.model.layers[0], unit["input"]
    attention = layer.self_attn
    injection = None
    if length:
        adapter = unit[f"adapter{length}"][None]
        gates = unit["weights.attention.gate"].flatten()[None]
        head_dim = attention.head_dim
        if length == 1:
            projections = [attention.v_proj.base]
            injection = gated_values(adapter[:, :, 0], projections, gates, head_dim)
        else:
            projections = [attention.k_proj.base], [attention.v_proj.base]
            injection = adapter_tokens(adapter, *projections, gates, head_dim)
    where = llm.model.rotary_emb(x, torch.arange(x.shape[1])[None])
    found = attention(x, where, None, injection=injection)[0]
    tolerance = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(found, unit[f"out.attention.adapter{length}"], **tolerance)
    found = layer(x, position_embeddings=where, injection=injection)
    torch.testing.assert_close(found, unit[f"out.block.adapter{length}"], **tolerance)
