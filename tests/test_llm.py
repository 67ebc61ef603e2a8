"""Base LLMs: which are taken, and the deltas that tuning adds."""

import pytest
import torch
import transformers
from torch import nn

from ibllm_tools.errors import ConfigurationError
from ibllm_tools.llm import (
    DeltaLinear,
    add_deltas,
    inspect_llm,
    merge_deltas,
    named_deltas,
    named_norms,
    use_injecting_attention,
    without_deltas,
)

SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def make(name, **options):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **options})
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", ["Llama", "Qwen2", "Qwen3", "Mistral", "Gemma", "Gemma2"])
def test_decoders_of_the_llama_shape_are_taken(name):
    shape = inspect_llm(make(name))
    assert (shape.n_layers, shape.n_heads, shape.n_kv_heads) == (2, 4, 2)
    assert (shape.head_dim, shape.dim, len(shape.attentions)) == (8, 32, 2)


@pytest.mark.parametrize(
    ("make_config", "found"),
    [
        (lambda: transformers.GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=9), "layers"),
        (
            lambda: transformers.GPTNeoXConfig(
                num_hidden_layers=1,
                hidden_size=16,
                num_attention_heads=2,
                vocab_size=9,
                intermediate_size=16,
            ),
            "q_proj",
        ),
        (
            lambda: transformers.Phi3Config(**SIZES, pad_token_id=0),
            "qkv_proj",
        ),
        (
            lambda: transformers.OPTConfig(
                hidden_size=16,
                num_attention_heads=2,
                num_hidden_layers=1,
                vocab_size=9,
                ffn_dim=16,
                word_embed_proj_dim=16,
            ),
            "o_proj",
        ),
    ],
)
def test_other_shapes_are_refused_by_name(make_config, found):
    llm = transformers.AutoModelForCausalLM.from_config(make_config())
    with pytest.raises(ConfigurationError, match=found) as error:
        inspect_llm(llm)
    assert type(llm).__name__ in str(error.value)
    assert "Llama" in str(error.value)


def test_an_attention_without_injecting_form_is_refused():
    with pytest.raises(ConfigurationError, match="flex_attention"):
        use_injecting_attention(make("Llama"), "flex_attention")


@pytest.mark.parametrize("name", ["Llama", "Gemma2"])
def test_the_injecting_attention_stands_on_the_stock_one(name):
    llm = make(name)
    stock = llm.config._attn_implementation
    use_injecting_attention(llm)
    assert llm.config._attn_implementation == f"imagebind_{stock}"


@pytest.mark.parametrize("has_bias", [False, True])
def test_a_delta_adds_an_unscaled_product_and_a_bias(has_bias):
    base = nn.Linear(5, 7, bias=has_bias)
    delta, x = DeltaLinear(base, 3, bias=True), torch.randn(4, 5)
    assert torch.equal(delta(x), base(x))
    delta.lora_b.data.normal_()
    delta.bias.data.normal_()
    expected = base(x) + x @ delta.lora_a.T @ delta.lora_b.T + delta.bias
    torch.testing.assert_close(delta(x), expected)
    assert torch.equal(delta.without_delta(x), base(x))


class EightBit(nn.Module):
    """Stands for a quantised map: the weight is no float, the forward is its own."""

    in_features, out_features = 5, 7

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(
            torch.randint(-99, 99, (7, 5), dtype=torch.int8), requires_grad=False
        )

    def forward(self, x):
        return (x.float() @ self.weight.float().T / 100).to(x.dtype)


def test_a_quantised_map_takes_deltas_but_is_not_merged():
    delta, x = DeltaLinear(EightBit(), 2, bias=True), torch.randn(3, 5, dtype=torch.bfloat16)
    assert torch.equal(delta(x), delta.base(x))
    delta.bias.data.fill_(1.0)
    assert delta(x).dtype == torch.bfloat16
    torch.testing.assert_close(delta(x), delta.base(x) + 1, atol=0.02, rtol=0.02)
    assert not delta.merge()
    torch.testing.assert_close(delta(x), delta.base(x) + 1, atol=0.02, rtol=0.02)


def tuned(name="Llama"):
    llm = make(name)
    plain = {key: value.clone() for key, value in llm.state_dict().items()}
    add_deltas(llm, 4)
    for _, parameter in named_deltas(llm):
        parameter.data.normal_(std=0.1)
    return llm, plain


def test_deltas_lie_where_the_paper_has_them():
    llm, _ = tuned()
    names = {name for name, _ in named_deltas(llm) if ".layers.0." in name}
    prefix = "model.layers.0."
    maps = [f"self_attn.{p}_proj" for p in "qkvo"] + [
        f"mlp.{p}_proj" for p in ("gate", "up", "down")
    ]
    expected = {f"{prefix}{m}.lora_{x}" for m in maps for x in "ab"}
    expected |= {f"{prefix}{m}.bias" for m in maps if m[-6] not in "kv" or "mlp" in m}
    assert names == expected
    assert len(list(named_norms(llm))) == 5


def test_adding_deltas_twice_adds_them_once():
    llm, _ = tuned()
    before = [name for name, _ in named_deltas(llm)]
    add_deltas(llm, 4)
    assert [name for name, _ in named_deltas(llm)] == before


@pytest.mark.parametrize("name", ["Llama", "Qwen2"])
def test_a_state_dict_without_deltas_is_the_plain_llms(name):
    llm, plain = tuned(name)
    found = without_deltas(llm.state_dict())
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[key], plain[key]) for key in plain)


@pytest.mark.parametrize("name", ["Llama", "Qwen2"])
@torch.no_grad()
def test_merging_keeps_the_results_and_the_value_map_without_lora(name):
    llm, _ = tuned(name)
    tokens, x = torch.randint(0, 40, (2, 5)), torch.randn(3, 32)
    expected = llm(tokens).logits
    value = llm.model.layers[1].self_attn.v_proj
    untuned = value.without_delta(x)
    merge_deltas(llm)
    torch.testing.assert_close(llm(tokens).logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(value.without_delta(x), untuned, atol=1e-5, rtol=1e-5)
    merge_deltas(llm)  # again: no change
    torch.testing.assert_close(llm(tokens).logits, expected, atol=1e-5, rtol=1e-5)
