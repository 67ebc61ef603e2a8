"""The whole model against the numbers of the released ImageBind-LLM code."""

import re
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from ibllm_tools.model import ImageBindLLM
from ibllm_tools.model.released import (
    adapter_config,
    adapter_state,
    llama_config,
    llama_state,
)
from ibllm_tools.model.sampling import nucleus_probabilities

pytestmark = pytest.mark.golden

FOLDER = "imagebind_llm_tiny"
VARIANTS = ["full_query", "last_layers", "legacy_bridge", "pretrain_phase", "end_to_end"]


def needed_keys(sizes):
    """Official names of the base file and the adapter file, from the sizes alone."""
    linears = [f"attention.w{x}" for x in "qkvo"] + [f"feed_forward.w{n}" for n in "123"]
    norms = ["attention_norm.weight", "ffn_norm.weight"]
    layers = [f"layers.{i}." for i in range(sizes["params_json"]["n_layers"])]
    base = ["tok_embeddings.weight", "norm.weight", "output.weight"]
    base += [layer + name for layer in layers for name in norms]
    base += [f"{layer}{name}.weight" for layer in layers for name in linears]
    adapter = ["prefix_query.weight", "image_bind_proj.weight", "image_bind_proj.bias"]
    ends = ["weight", "bias"] if sizes["model"]["legacy_bridge"] else ["weight"]
    parts = [f"{part}_{n}" for part in ("norm", "f1", "f2", "f3") for n in "123"]
    adapter += [f"image_bind_{part}.{end}" for part in parts for end in ends]
    own = [*norms, "attention.gate"]
    if sizes["model"]["phase"] == "finetune":
        own += [f"{name.replace('.', '.lora_')}_l{n}.weight" for name in linears for n in "12"]
        own += [f"{name}.bias" for name in linears if name[-1] not in "kv"]
    adapter += ["llama.norm.weight"] + [f"llama.{layer}{name}" for layer in layers for name in own]
    return base, adapter


def build(golden, variant, encoder=None):
    """The variant's model, loaded as `ibllm convert` loads released files."""
    place = f"{FOLDER}/{variant}"
    sizes = golden.json(f"{place}/config.json")
    base, adapter = (golden.tensors(f"{place}/{name}.safetensors") for name in ("llama", "adapter"))
    for tensors, names in zip((base, adapter), needed_keys(sizes), strict=True):
        assert [tensors[name].shape for name in names]  # skips if one is absent
        assert {name for name in tensors if not name.startswith("rope.")} == set(names)
    text_config = llama_config(sizes["params_json"], base, sizes["model"]["max_seq_len"])
    config = adapter_config(adapter, text_config)
    llm = AutoModelForCausalLM.from_config(text_config)
    llm.load_state_dict(llama_state(base, text_config), strict=True)
    model = ImageBindLLM(config, llm, encoder)
    weights = adapter_state(adapter, config)
    expected = model.adapter_state_dict().keys() | {
        key for key in weights if key.endswith("norm.weight")
    }
    assert weights.keys() == expected
    model.load_state_dict(weights, strict=False)
    return model.eval()


def load_case(golden, variant):
    place = f"{FOLDER}/{variant}"
    return SimpleNamespace(
        model=build(golden, variant),
        sizes=golden.json(f"{place}/config.json"),
        inputs=golden.tensors(f"{place}/inputs.safetensors"),
        outputs=golden.tensors(f"{place}/outputs.safetensors"),
        load_grads=lambda: golden.tensors(f"{place}/grads.safetensors"),
    )


@pytest.fixture(scope="module", params=VARIANTS)
def case(request, golden):
    return load_case(golden, request.param)


@pytest.fixture(scope="module", params=VARIANTS[:4])
def stubbed(request, golden):
    """The variants whose features are stored; the fifth senses them, see the end-to-end tests."""
    return load_case(golden, request.param)


def close(found, expected, tolerance=1e-4):
    assert found.shape == expected.shape
    scale = max(1.0, float(expected.abs().max()))
    assert float((found - expected).detach().abs().max()) <= tolerance * scale


def skip_without(what):
    pytest.skip(f"the golden folder has no {what}")


def test_bind_network_equals_every_visual_forward(case):
    names = [key.removesuffix(".out") for key in case.outputs if key.endswith(".out")]
    assert names or skip_without("visual.*.out")
    for name in names:  # visual.<mix> and cache.<mix>.<setting>
        close(case.model.bind(case.outputs[f"{name}.joint"]), case.outputs[f"{name}.out"])


def train_features(case):
    """The features of the training batch: one image a row, as a mix of one."""
    image = case.inputs["features.Image"]
    return torch.nn.functional.normalize(image, dim=-1) / (1 + 1e-6)


def targets(labels):
    """The released code ignores label 0 where transformers ignores -100."""
    return labels.masked_fill(labels == 0, -100)


@pytest.fixture
def trained(stubbed):
    tokens, labels = stubbed.inputs["train.tokens"], stubbed.inputs["train.labels"]
    stage = {"pretrain": "bind", "finetune": "instruct"}[stubbed.sizes["model"]["phase"]]
    stubbed.model.zero_grad()
    names = stubbed.model.set_phase(stage)
    output = stubbed.model(tokens, labels=targets(labels), features=train_features(stubbed))
    return SimpleNamespace(output=output, names=names)


def test_training_loss_and_logits(stubbed, trained):
    close(trained.output.logits, stubbed.outputs["train.logits"])
    close(trained.output.loss[None], stubbed.outputs["train.loss"])


def test_gradients_of_every_trainable_weight(stubbed, trained):
    trained.output.loss.backward()
    grads = stubbed.load_grads()
    gradients = {name: grads[name] for name in stubbed.sizes["trainable"]}
    assert gradients.keys() == grads.keys()
    expected = adapter_state(gradients, stubbed.model.config)
    assert trained.names.keys() == expected.keys()
    for name, gradient in expected.items():
        assert trained.names[name].grad is not None, name
        close(trained.names[name].grad, gradient)


def test_loss_without_targets_is_zero(stubbed):
    tokens = stubbed.inputs["train.tokens"]
    labels = torch.full_like(tokens, -100)
    found = stubbed.model(tokens, labels=labels, features=train_features(stubbed)).loss
    close(found[None], stubbed.outputs["train.loss_all_labels_zero"])


def test_step_logits_and_greedy_tokens(case):
    prompt, expected = case.inputs["infer.prompt"], case.outputs["infer.step_logits"]
    injection = case.model.inject_bound(case.inputs["infer.visual"])
    tokens, past, steps = prompt, None, []
    with torch.no_grad():
        for _ in range(expected.shape[1]):
            fed = tokens if past is None else tokens[:, -1:]
            out = case.model(fed, injection=injection, past_key_values=past, use_cache=True)
            past = out.past_key_values
            steps.append(out.logits[:, -1])
            tokens = torch.cat([tokens, out.logits[:, -1:].argmax(-1)], dim=1)
    close(torch.stack(steps, 1), expected)
    length = case.outputs["infer.greedy_tokens"].shape[1]
    assert torch.equal(tokens[:, :length], case.outputs["infer.greedy_tokens"])
    found = case.model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        injection=injection,
        max_length=length,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert torch.equal(found, case.outputs["infer.greedy_tokens"])


def answer(case, prompts, features, n_tokens, eos=2):
    """Answers without the end token, as the released generate call returns them."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    found = case.model.generate(
        ids,
        attention_mask=mask,
        features=features,
        max_new_tokens=n_tokens,
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=0,
    )[:, width:]
    return [row[: row.index(eos)] if eos in row else row for row in found.tolist()]


def mixed(case, weights):
    """The features of a mix, from the stored ones."""
    total = sum(weights.values()) + 1e-6
    return sum(
        torch.nn.functional.normalize(case.inputs[f"features.{name}"], dim=-1) * weight / total
        for name, weight in weights.items()
    )


def test_public_generate(stubbed):
    wanted = stubbed.sizes["generate"]
    prompts, features = wanted["prompts"], mixed(stubbed, wanted["mix"])
    usual_eos = stubbed.sizes["special_ids"]["eos"]

    def answers(rows, n_tokens, eos=usual_eos):
        room = stubbed.sizes["model"]["max_seq_len"] - max(len(p) for p in prompts[rows])
        return answer(stubbed, prompts[rows], features[rows], min(n_tokens, room), eos)

    first, second, both = slice(0, 1), slice(1, 2), slice(0, 2)
    n_tokens, expected = length_and_answer(wanted, r"batch_of_two_max_gen_len_(\d+)")
    assert answers(both, n_tokens) == expected
    n_tokens, expected = length_and_answer(wanted, r"second_prompt_alone_max_gen_len_(\d+).*")
    assert answers(second, n_tokens) == [expected]
    n_tokens, expected = length_and_answer(wanted, r"first_prompt_alone_max_gen_len_(\d+)")
    assert answers(first, n_tokens) == [expected]
    eos = wanted["first_prompt_alone_with_eos_id"]
    assert answers(first, n_tokens, eos) == [wanted["first_prompt_alone_with_that_eos"]]


def length_and_answer(wanted, pattern):
    """The stored answer whose name fits, and the length limit in its name."""
    for name, tokens in wanted.items():
        if match := re.fullmatch(pattern, name):
            return int(match[1]), tokens
    return pytest.skip(f"the golden folder has no answer {pattern}")


def test_row_one_of_a_batch_is_what_it_is_alone(stubbed):
    tokens = stubbed.inputs["train.tokens"]
    features = torch.stack(
        [stubbed.inputs["features.Audio"][0], stubbed.inputs["features.Point"][1]]
    )
    with torch.no_grad():
        both = stubbed.model(tokens, features=features).logits
        for row in range(2):
            alone = stubbed.model(tokens[row : row + 1], features=features[row : row + 1]).logits
            close(both[row : row + 1], alone, 1e-5)


def test_folder_gives_the_same_logits(case, tmp_path):
    model, tokens = case.model, case.inputs["infer.prompt"]
    injection = model.inject_bound(case.inputs["infer.visual"])
    with torch.no_grad():
        expected = model(tokens, injection=injection).logits
        model.save_pretrained(tmp_path)
        again = ImageBindLLM.from_pretrained(tmp_path)
        injection = again.inject_bound(case.inputs["infer.visual"])
        assert torch.equal(again(tokens, injection=injection).logits, expected)
        again.merge()
        injection = again.inject_bound(case.inputs["infer.visual"])
        close(again(tokens, injection=injection).logits, expected, 1e-5)


def test_sampling_probabilities(stubbed):
    logits = stubbed.inputs["sampling.logits"]
    names = [key for key in stubbed.outputs if key.startswith("sampling.")]
    assert names or skip_without("sampling.*.probs")
    for name in names:  # such as sampling.t0.7_p0.9.probs
        temperature, top_p = name.removeprefix("sampling.t").removesuffix(".probs").split("_p")
        found = nucleus_probabilities(logits, float(temperature), float(top_p))
        close(found, stubbed.outputs[name], 1e-6)
        assert torch.equal(found > 0, stubbed.outputs[name] > 0)
