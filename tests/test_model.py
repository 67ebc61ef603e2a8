"""`ImageBindLLM` as people use it: forward, generate, save and load, on four kinds of decoders."""

import json
import shutil
import threading

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_model import byte_tokenizer, tiny_encoder
from transformers import TextIteratorStreamer

from ibllm_tools.cache import CacheSettings, VisualCache
from ibllm_tools.errors import CheckpointError, ConfigurationError
from ibllm_tools.model import ImageBindLLM, ImageBindLLMConfig
from ibllm_tools.preprocess import MediaBatch

VOCABULARY, JOINT = 260, 16
KINDS = ["Llama", "Qwen3", "Mistral", "Gemma", "Gemma2", "Gemma3Text"]


def bare_llm(kind="Llama", seed=0):
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
        **({"sliding_window": 4} if kind != "Llama" and kind != "Gemma" else {}),
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def with_senses(kind="Llama", *, gate=1.0, **options):
    model = ImageBindLLM.from_llm(bare_llm(kind), joint_dim=JOINT, **options).eval()
    torch.manual_seed(1)
    for parameter in (*model.bind_network.parameters(), model.prefix_query):
        if parameter is not None and parameter.ndim > 1:
            parameter.data.normal_(std=0.3)
    model.gates.data.fill_(gate)
    return model


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def ids():
    return torch.randint(3, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(5))


@pytest.fixture
def features():
    return torch.randn(3, JOINT, generator=torch.Generator().manual_seed(6))


LEFT_PADDED = torch.tensor([[0, 0, 0] + [1] * 6, [1] * 9, [0] + [1] * 8])


def generate(model, ids, **options):
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, **options}
    return model.generate(ids, **options)


# forward


@torch.no_grad()
def test_closed_gates_are_the_bare_llm_bit_by_bit(kind, ids, features):
    bare, model = bare_llm(kind), with_senses(kind, gate=0.0)
    expected = bare(ids, attention_mask=LEFT_PADDED).logits
    assert torch.equal(model(ids, attention_mask=LEFT_PADDED, features=features).logits, expected)
    assert torch.equal(model(ids, attention_mask=LEFT_PADDED).logits, expected)
    mask = {"attention_mask": LEFT_PADDED}
    assert torch.equal(generate(model, ids, features=features, **mask), generate(bare, ids, **mask))


@torch.no_grad()
def test_open_gates_change_every_row_and_rows_are_what_they_are_alone(kind, ids, features):
    model = with_senses(kind)
    both, plain = model(ids, features=features).logits, model(ids).logits
    for row in range(3):
        assert not torch.allclose(both[row], plain[row], atol=1e-3)
        alone = model(ids[row : row + 1], features=features[row : row + 1]).logits
        torch.testing.assert_close(both[row : row + 1], alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_rows_without_media_are_the_bare_llm(kind, ids, features):
    model, has_media = with_senses(kind), torch.tensor([True, False, True])
    found = model(ids, features=features, has_media=has_media).logits
    assert torch.equal(found[1], model(ids).logits[1])
    assert not torch.allclose(found[0], model(ids).logits[0])
    none = torch.zeros(3, dtype=torch.bool)
    assert model.injection(features, none) is None
    assert torch.equal(model(ids, features=features, has_media=none).logits, model(ids).logits)


@pytest.mark.parametrize("form", ["values", "words"])
@pytest.mark.parametrize("n_queries", [1, 3])
@torch.no_grad()
def test_forms_of_injection(ids, features, form, n_queries):
    if form == "words" and n_queries > 1:
        with pytest.raises(ConfigurationError, match="n_queries"):
            ImageBindLLMConfig(bare_llm().config, injection_form=form, n_queries=n_queries)
        return
    model = with_senses(injection_form=form, n_queries=n_queries, n_injected_layers=2)
    injection = model.injection(features)
    assert len(injection) == 2
    found = model(ids, injection=injection).logits
    assert not torch.allclose(found, model(ids).logits)
    has_media = torch.tensor([False, True, True])
    assert torch.equal(
        model(ids, features=features, has_media=has_media).logits[0], model(ids).logits[0]
    )
    wide = generate(model, ids, features=features, num_beams=2, num_return_sequences=2)
    assert wide.shape[0] == 6


@torch.no_grad()
def test_equation_two_adds_the_bound_vector_to_the_word_tokens(ids, features):
    model = with_senses(injection_form="words", n_injected_layers=1, gate=0.7)
    states = model(ids, output_hidden_states=True).hidden_states
    layer, norm = model.llm.model.layers[-1], model.llm.model.norm
    x = states[-2] + 0.7 * model.bind(features)
    where = model.llm.model.rotary_emb(x, torch.arange(ids.shape[1])[None])
    expected = model.llm.lm_head(norm(layer(x, position_embeddings=where)))
    torch.testing.assert_close(model(ids, features=features).logits, expected)
    closed = with_senses(injection_form="words", gate=0.0)
    assert torch.equal(closed(ids, features=features).logits, closed(ids).logits)


def test_labels_give_the_mean_loss_of_those_not_ignored(ids, features):
    model, labels = with_senses(), ids.clone()
    labels[:, :4] = -100
    out = model(ids, features=features, labels=labels)
    expected = torch.nn.functional.cross_entropy(
        out.logits[:, 3:-1].flatten(0, 1), ids[:, 4:].flatten()
    )
    torch.testing.assert_close(out.loss, expected)
    nothing = model(ids, features=features, labels=torch.full_like(ids, -100)).loss
    assert nothing.item() == 0
    nothing.backward()  # a batch without targets does not stop a training


def test_wrong_features_are_refused(ids, features):
    model = with_senses()
    with pytest.raises(ConfigurationError, match=r"\(rows, 16\)"):
        model(ids, features=features[:, :5])
    with pytest.raises(ConfigurationError, match="not several"):
        model(ids, features=features, injection=model.injection(features))
    with pytest.raises(ConfigurationError, match="no encoder"):
        model(ids, media=MediaBatch(3, {"image": features}, {"image": torch.arange(3)}, {}))


def test_an_injection_is_never_dropped_silently(ids, features):
    model = with_senses()
    model.set_attn_implementation("eager")
    eager = model(ids, features=features).logits
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(model(ids, features=features).logits, eager)
    model.llm.set_attn_implementation("sdpa")
    with pytest.raises(ConfigurationError, match="nothing would be injected"):
        model(ids, features=features)


# generate


@torch.no_grad()
def test_greedy_tokens_are_those_of_repeated_forward_calls(kind, ids, features):
    model, tokens = with_senses(kind), ids
    for _ in range(8):
        logits = model(tokens, features=features).logits
        tokens = torch.cat([tokens, logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(generate(model, ids, features=features), tokens)
    static = generate(model, ids, features=features, cache_implementation="static")
    assert torch.equal(static, tokens)


@torch.no_grad()
def test_left_padding_changes_no_answer(kind, ids, features):
    model = with_senses(kind)
    padded = ids * LEFT_PADDED
    both = generate(model, padded, attention_mask=LEFT_PADDED, features=features)[:, 9:]
    for row in range(3):
        alone = ids[row, LEFT_PADDED[row].bool()][None]
        found = generate(model, alone, features=features[row : row + 1])[:, alone.shape[1] :]
        assert torch.equal(both[row : row + 1], found)


@torch.no_grad()
def test_beams_and_several_answers_keep_their_rows_media(ids, features):
    model, wide = with_senses(), {"num_beams": 3, "num_return_sequences": 2}
    both = generate(model, ids, features=features, **wide)
    for row in range(3):
        alone = generate(
            model,
            ids[row : row + 1],
            features=features[row : row + 1],
            num_beams=3,
            num_return_sequences=2,
        )
        assert torch.equal(both[2 * row : 2 * row + 2], alone)
    sampled = generate(
        model,
        ids[:2],
        features=features[:2],
        do_sample=True,
        temperature=0.001,
        num_return_sequences=3,
    )
    greedy = generate(model, ids[:2], features=features[:2])
    assert torch.equal(sampled, greedy.repeat_interleave(3, 0))


@torch.no_grad()
def test_seeded_sampling_repeats_and_seeds_differ(ids, features):
    model = with_senses()

    def sample(seed):
        torch.manual_seed(seed)
        return generate(model, ids, features=features, do_sample=True, top_p=0.9)

    assert torch.equal(sample(0), sample(0))
    assert not torch.equal(sample(0), sample(1))


def test_answers_stream(ids, features):
    tokenizer, model = byte_tokenizer(), with_senses()
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    options = {"features": features[:1], "streamer": streamer}
    thread = threading.Thread(target=generate, args=(model, ids[:1]), kwargs=options)
    thread.start()
    streamed = "".join(streamer)
    thread.join()
    answer = generate(model, ids[:1], features=features[:1])[0, ids.shape[1] :]
    assert streamed == tokenizer.decode(answer)


@torch.no_grad()
def test_a_typing_error_in_generate_is_told(ids):
    with pytest.raises(ValueError, match="featuers"):
        generate(with_senses(), ids, featuers=1)


# media


@pytest.fixture(scope="module")
def sensing():
    torch.manual_seed(3)
    encoder = tiny_encoder()
    cache = VisualCache(torch.randn(30, JOINT))
    model = ImageBindLLM.from_llm(bare_llm(), encoder, cache).eval()
    model.gates.data.fill_(1.0)
    return model


def media_of(rows):
    """Random media; `rows` is one string of letters per row: i(mage), a(udio), p(oint)."""
    made = {
        "image": lambda: torch.randn(3, 32, 32),
        "audio": lambda: torch.randn(3, 1, 128, 204),
        "point": lambda: torch.randn(64, 3),
    }
    found = {}
    for row, letters in enumerate(rows):
        for letter in letters:
            name = next(name for name in made if name[0] == letter)
            found.setdefault(name, []).append((made[name](), row, 0.5 + row))
    return MediaBatch(
        len(rows),
        {name: torch.stack([x for x, _, _ in found[name]]) for name in found},
        {name: torch.tensor([row for _, row, _ in found[name]]) for name in found},
        {name: torch.tensor([w for _, _, w in found[name]]) for name in found},
    )


def one_row(batch, row):
    """The row of a batch by itself."""
    kept = {name: (rows == row).nonzero().flatten() for name, rows in batch.rows.items()}
    kept = {name: index for name, index in kept.items() if len(index)}
    return MediaBatch(
        1,
        {name: batch.inputs[name][index] for name, index in kept.items()},
        {name: torch.zeros_like(index) for name, index in kept.items()},
        {name: batch.weights[name][index] for name, index in kept.items()},
    )


@pytest.mark.parametrize("cache", [False, True, CacheSettings(k=3, form="paper")])
def test_a_batch_of_different_media_is_its_rows(sensing, ids, cache):
    batch = media_of(["ia", "", "p"])
    features, has_media = sensing.sense(batch, cache)
    assert has_media.tolist() == [True, False, True]
    both = generate(sensing, ids, media=batch, cache=cache)
    for row in range(3):
        alone, _ = sensing.sense(one_row(batch, row), cache)
        torch.testing.assert_close(features[row : row + 1], alone, atol=1e-5, rtol=1e-5)
        found = generate(sensing, ids[row : row + 1], media=one_row(batch, row), cache=cache)
        assert torch.equal(both[row : row + 1], found)
    assert torch.equal(both[1], generate(sensing, ids)[1])


def test_a_batch_without_media_needs_no_encoder(ids):
    model = with_senses()
    features, has_media = model.sense(MediaBatch(3))
    assert features.shape == (3, JOINT)
    assert not has_media.any()
    assert torch.equal(model(ids, media=MediaBatch(3)).logits, model(ids).logits)


def test_the_default_says_whether_the_cache_is_used(sensing):
    batch = media_of(["i"])
    on, off = sensing.sense(batch, cache=True)[0], sensing.sense(batch, cache=False)[0]
    assert not torch.allclose(on, off)
    assert torch.equal(sensing.sense(batch)[0], off)
    sensing.config.use_cache_by_default = True
    try:
        assert torch.equal(sensing.sense(batch)[0], on)
    finally:
        sensing.config.use_cache_by_default = False
    with pytest.raises(ConfigurationError, match="no visual cache"):
        ImageBindLLM.from_llm(bare_llm(), tiny_encoder()).sense(batch, cache=True)


def test_text_only_rows_can_get_a_zero_image(sensing, ids):
    batch = media_of(["i", ""])
    sensing.config.text_only = "zero_image"
    try:
        features, has_media = sensing.sense(batch)
    finally:
        sensing.config.text_only = "none"
    assert has_media.all()
    zero = sensing.encoder.encode("image", torch.zeros(1, 3, 32, 32))
    expected = torch.nn.functional.normalize(zero)
    torch.testing.assert_close(features[1:], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features[:1], sensing.sense(one_row(batch, 0))[0])


def test_the_encoder_runs_once_per_request_not_per_token(sensing, ids):
    batch, calls = media_of(["i", "i", "i"]), []
    handle = sensing.encoder.modality_heads["vision"].register_forward_hook(
        lambda *_: calls.append(1)
    )
    generate(sensing, ids, media=batch)
    handle.remove()
    assert len(calls) == 1


# training


def test_each_stage_trains_its_weights_and_no_others(ids, features):
    model = with_senses(gate=0.0)
    trained = model.set_phase("bind")
    model(ids, features=features, labels=ids).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) is (name in trained), name
    assert model.gates.grad.abs().min() > 0  # closed gates can open
    expected = model(ids, features=features).logits
    model.zero_grad()
    trained = model.set_phase("instruct")
    assert torch.equal(model(ids, features=features).logits, expected)  # no effect yet
    model(ids, features=features, labels=ids).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) is (name in trained), name
    assert {name.rsplit(".", 1)[1] for name in trained} == {"lora_a", "lora_b", "bias", "weight"}
    with pytest.raises(ConfigurationError, match="'bind' or 'instruct'"):
        model.set_phase("all")


def test_a_few_steps_teach_what_only_the_media_tell(ids):
    model = with_senses(gate=0.0)
    prompts = ids[:1].expand(4, -1)
    features, labels = torch.eye(4, JOINT) * 3, prompts.clone()
    labels[:, :-1] = -100
    labels[:, -1] = torch.tensor([10, 20, 30, 40])
    optimizer = torch.optim.AdamW(model.set_phase("bind").values(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(prompts, features=features, labels=labels).loss
        loss.backward()
        optimizer.step()
    answers = model(prompts, features=features).logits[:, -2].argmax(-1)
    assert answers.tolist() == [10, 20, 30, 40]


def test_gradient_checkpointing_gives_the_same_gradients(ids, features):
    model = with_senses()
    grads = []
    for turn in range(2):
        if turn:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train().zero_grad()
        model.set_phase("bind")
        model(ids, features=features, labels=ids).loss.backward()
        grads.append(model.gates.grad.clone())
    torch.testing.assert_close(*grads)


# save and load


def open_deltas(model):
    model.add_deltas(rank=4)
    for parameter in model.trainable_parameters("instruct").values():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    return model


@torch.no_grad()
def test_a_saved_model_is_the_same(kind, ids, features, tmp_path):
    model = open_deltas(with_senses(kind, n_injected_layers=2))
    model.save_pretrained(tmp_path)
    again = ImageBindLLM.from_pretrained(tmp_path)
    assert not again.training
    expected = model(ids, features=features).logits
    assert torch.equal(again(ids, features=features).logits, expected)
    assert torch.equal(
        generate(again, ids, features=features), generate(model, ids, features=features)
    )
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "llm")
    assert stock(ids).logits.shape == expected.shape  # any tool can read the base LLM
    again.merge()
    torch.testing.assert_close(again(ids, features=features).logits, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigurationError, match="merged"):
        again.save_pretrained(tmp_path / "merged")


@pytest.mark.parametrize("options", [{"injection_form": "words"}, {"n_queries": 2}])
@torch.no_grad()
def test_other_forms_are_saved_too(ids, features, tmp_path, options):
    model = with_senses(**options)
    model.save_pretrained(tmp_path)
    again = ImageBindLLM.from_pretrained(tmp_path)
    assert torch.equal(again(ids, features=features).logits, model(ids, features=features).logits)


@torch.no_grad()
def test_a_saved_adapter_names_its_llm_and_encoder(sensing, ids, tmp_path):
    batch = media_of(["i", "a", ""])
    expected = sensing(ids, media=batch).logits
    sensing.save_pretrained(tmp_path / "whole")
    sensing.config.base_llm = sensing.config.base_encoder = None
    with pytest.raises(ConfigurationError, match="base_llm"):
        sensing.save_pretrained(tmp_path / "unnamed", adapter_only=True)
    sensing.config.base_llm = "../whole/llm"
    with pytest.raises(ConfigurationError, match="base_encoder"):
        sensing.save_pretrained(tmp_path / "unnamed", adapter_only=True)
    sensing.config.base_encoder = "../whole"
    sensing.save_pretrained(tmp_path / "adapter", adapter_only=True)
    sensing.config.base_llm = sensing.config.base_encoder = None
    files = sorted(path.name for path in (tmp_path / "adapter").iterdir())
    assert files == ["adapter.safetensors", "config.json", "generation_config.json"]
    again = ImageBindLLM.from_pretrained(tmp_path / "adapter")
    assert torch.equal(again(ids, media=batch).logits, expected)
    shutil.rmtree(tmp_path / "whole" / "llm")
    with pytest.raises(CheckpointError, match="llm"):
        ImageBindLLM.from_pretrained(tmp_path / "adapter")


@torch.no_grad()
def test_a_saved_encoder_and_cache_load_when_used(sensing, ids, tmp_path):
    sensing.save_pretrained(tmp_path)
    again = ImageBindLLM.from_pretrained(tmp_path)
    assert again.encoder.loaded == []
    batch = media_of(["i", "i", ""])
    expected = sensing.sense(batch, cache=True)[0]
    assert torch.equal(again.sense(batch, cache=True)[0], expected)
    assert again.encoder.loaded == ["vision"]


@torch.no_grad()
def test_half_precision_files_are_widened_on_a_cpu(ids, features, tmp_path):
    model = with_senses().to(torch.float16)
    model.save_pretrained(tmp_path)
    wide = ImageBindLLM.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in wide.parameters()} == {torch.float32}
    assert torch.equal(wide.gates, model.gates.float())
    half = ImageBindLLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    exact = wide(ids, features=features).logits
    near = half(ids, features=features).logits.float()
    assert (exact - near).abs().max() < 0.1 * exact.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        near = wide(ids, features=features).logits.float()
    assert (exact - near).abs().max() < 0.1 * exact.abs().max()


@torch.no_grad()
def test_a_device_map_is_taken(ids, features, tmp_path):
    pytest.importorskip("accelerate")
    model = with_senses()
    model.save_pretrained(tmp_path)
    again = ImageBindLLM.from_pretrained(tmp_path, device_map="cpu", attn_implementation="eager")
    torch.testing.assert_close(
        again(ids, features=features).logits, model(ids, features=features).logits
    )


def test_what_does_not_fit_is_named(tmp_path):
    with_senses().save_pretrained(tmp_path)
    adapter = load_file(tmp_path / "adapter.safetensors")

    def broken(state):
        save_file(state, tmp_path / "adapter.safetensors")
        with pytest.raises(CheckpointError) as error:
            ImageBindLLM.from_pretrained(tmp_path)
        return str(error.value)

    assert "missing: gates" in broken({k: v for k, v in adapter.items() if k != "gates"})
    assert "unexpected: extra" in broken({**adapter, "extra": torch.zeros(1)})
    assert "gates [2, 4] instead of [3, 4]" in broken({**adapter, "gates": torch.zeros(2, 4)})
    (tmp_path / "adapter.safetensors").write_bytes(b"not a file of weights")
    with pytest.raises(CheckpointError, match=r"adapter\.safetensors"):
        ImageBindLLM.from_pretrained(tmp_path)
    (tmp_path / "adapter.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"adapter\.safetensors"):
        ImageBindLLM.from_pretrained(tmp_path)


def test_a_base_llm_that_does_not_fit_is_named(tmp_path):
    with_senses().save_pretrained(tmp_path)
    path = tmp_path / "llm" / "model.safetensors"
    state = load_file(path)
    state["model.norm.wieght"] = state.pop("model.norm.weight")
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing: model.norm.weight.*model.norm.wieght"):
        ImageBindLLM.from_pretrained(tmp_path)


def test_what_is_no_model_is_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        ImageBindLLM.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="from_llm"):
        ImageBindLLM.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        ImageBindLLM.from_pretrained(tmp_path)
    with_senses().save_pretrained(tmp_path)
    (tmp_path / "llm" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="base LLM"):
        ImageBindLLM.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="neither a folder nor"):
        ImageBindLLM.from_pretrained("nobody/no-such-model")


def test_config_survives_json(tmp_path):
    config = ImageBindLLMConfig(
        bare_llm().config,
        tiny_encoder().config,
        joint_dim=JOINT,
        lora_rank=4,
        text_only="zero_image",
    )
    config.save_pretrained(tmp_path)
    again = ImageBindLLMConfig.from_pretrained(tmp_path)
    assert again.text_config.model_type == "llama"
    assert again.encoder_config.trunks.keys() == config.encoder_config.trunks.keys()
    assert (again.joint_dim, again.lora_rank, again.text_only) == (JOINT, 4, "zero_image")
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "imagebind_llm"
    with pytest.raises(ConfigurationError, match="zero_image"):
        ImageBindLLMConfig(bare_llm().config, text_only="maybe")
    with pytest.raises(ConfigurationError, match="1 to 3"):
        with_senses(n_injected_layers=4)
