"""Tiny checkpoints of the experts' architectures, made in place: real code, small sizes."""

import numpy as np
import torch
import transformers as tf

RATE_HZ = 16_000
NAMES = {0: "dog", 1: "bus", 2: "traffic light"}


def _save(folder, *parts):
    for part in parts:
        part.save_pretrained(folder)
    return str(folder)


def _resnet():
    return tf.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )


def _detr_sizes():
    return {
        "encoder_hidden_dim": 16,
        "encoder_in_channels": [8, 16, 16],
        "encoder_ffn_dim": 16,
        "encoder_attention_heads": 2,
        "d_model": 16,
        "num_queries": 20,
        "decoder_in_channels": [16, 16, 16],
        "decoder_ffn_dim": 16,
        "decoder_layers": 2,
        "decoder_attention_heads": 2,
        "hidden_expansion": 0.5,
        "id2label": NAMES,
        "label2id": {name: i for i, name in NAMES.items()},
    }


def rt_detr(folder, seed=0):
    torch.manual_seed(seed)
    config = tf.RTDetrConfig(backbone_config=_resnet(), **_detr_sizes())
    return _save(folder, tf.RTDetrForObjectDetection(config), tf.RTDetrImageProcessorPil(size=SIDE))


SIDE = {"height": 64, "width": 64}


def d_fine(folder, seed=0):
    torch.manual_seed(seed)
    backbone = tf.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 8, 8, 16],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[8, 8, 16, 16],
        stage_num_blocks=[1, 1, 1, 1],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        stage_numb_of_layers=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        embedding_size=8,
    )
    config = tf.DFineConfig(backbone_config=backbone, **_detr_sizes())
    return _save(folder, tf.DFineForObjectDetection(config), tf.RTDetrImageProcessorPil(size=SIDE))


def _letters():
    """Vocabulary and merges of a byte-level tokenizer without merges."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    return letters, [f"{letter}</w>" for letter in letters]


def owlv2(folder, seed=0):
    torch.manual_seed(seed)
    letters, ends = _letters()
    tokens = [*letters, *ends, "<|startoftext|>", "<|endoftext|>", "!!"]
    tokenizer = tf.CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[],
        pad_token="<|endoftext|>",
        model_max_length=32,
    )
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "vocab_size": len(tokens), "max_position_embeddings": 32}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 64, "patch_size": 16}
    config = tf.Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)
    processor = tf.Owlv2Processor(tf.Owlv2ImageProcessorPil(size=SIDE), tokenizer)
    return _save(folder, tf.Owlv2ForObjectDetection(config), processor)


def grounding_dino(folder, seed=0):
    torch.manual_seed(seed)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "red", "dog", "bus", "fire", "##s"]
    tokenizer = tf.BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    swin = tf.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_indices=[2, 3, 4],
    )
    bert = tf.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    config = tf.GroundingDinoConfig(
        backbone_config=swin,
        text_config=bert,
        d_model=32,
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        num_queries=20,
        max_text_len=64,
    )
    images = tf.GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128})
    processor = tf.GroundingDinoProcessor(images, tokenizer)
    model = tf.GroundingDinoForObjectDetection(config)
    return _save(folder, model, processor)


# Speech: a "language" of tones that a tiny Whisper learns in seconds.

WORDS = {"low": 300, "middle": 900, "high": 2700}  # tones in Hz
WINDOW_S = 2
TONE_S = 0.4
SLOTS_S = (0.2, 0.8, 1.4)


def tones(words, seed=0, length_s=WINDOW_S):
    """(S,) float32 with one tone for each word, at 0.2 s, 0.8 s and 1.4 s."""
    random = np.random.default_rng(seed)
    sound = 0.003 * random.standard_normal(round(length_s * RATE_HZ))
    time_s = np.arange(round(TONE_S * RATE_HZ)) / RATE_HZ
    for word, start_s in zip(words, SLOTS_S, strict=False):
        hz = WORDS[word] * random.uniform(0.95, 1.05)
        tone = random.uniform(0.2, 0.6) * np.sin(2 * np.pi * hz * time_s + random.uniform(0, 6))
        first = round(start_s * RATE_HZ)
        sound[first : first + tone.size] += tone * np.hanning(tone.size) ** 0.25
    return sound.astype(np.float32)


def hiss(seed=0, length_s=WINDOW_S):
    """Loud noise without a tone: what the tiny Whisper learns to hold for no speech."""
    random = np.random.default_rng(seed)
    return (0.1 * random.standard_normal(round(length_s * RATE_HZ))).astype(np.float32)


def _whisper_tokenizer():
    letters, _ = _letters()
    merges, joined = [], []
    for word in WORDS:
        piece = "Ġ"
        for letter in word:
            merges.append((piece, letter))
            piece += letter
            joined.append(piece)
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*letters, *joined]))}
    vocab["<|endoftext|>"] = len(vocab)
    tokenizer = tf.WhisperTokenizer(vocab=vocab, merges=list(dict.fromkeys(merges)))
    special = ["<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"]
    special += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    special += [f"<|{0.02 * i:.2f}|>" for i in range(50 * WINDOW_S + 1)]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    return tokenizer


def _whisper_settings(tokenizer, config):
    ids = tokenizer.convert_tokens_to_ids
    return tf.GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        no_timestamps_token_id=ids("<|notimestamps|>"),
        prev_sot_token_id=ids("<|startofprev|>"),
        lang_to_id={"<|en|>": ids("<|en|>"), "<|de|>": ids("<|de|>")},
        task_to_id={"transcribe": ids("<|transcribe|>"), "translate": ids("<|translate|>")},
        is_multilingual=True,
        alignment_heads=[[1, 0], [1, 1]],
        max_length=32,
        max_initial_timestamp_index=50,
        return_timestamps=False,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )


def whisper(folder, n_steps=150, seed=0):
    """A Whisper of 2 s windows that has learned to write tones as words, with times.

    What begins with a low tone is "German", the rest "English", so that language is heard too.
    """
    torch.manual_seed(seed)
    tokenizer = _whisper_tokenizer()
    extract = tf.WhisperFeatureExtractor(feature_size=80, chunk_length=WINDOW_S)
    ids = tokenizer.convert_tokens_to_ids
    end = ids("<|endoftext|>")
    config = tf.WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=80,
        d_model=64,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_source_positions=50 * WINDOW_S,
        max_target_positions=40,
        decoder_start_token_id=ids("<|startoftranscript|>"),
        eos_token_id=end,
        bos_token_id=end,
        pad_token_id=end,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = tf.WhisperForConditionalGeneration(config)
    model.generation_config = _whisper_settings(tokenizer, config)
    _teach(model, extract, tokenizer, n_steps)
    return _save(folder, model, tf.WhisperProcessor(extract, tokenizer))


def spoken(seed):
    """One to three words for one window."""
    random = np.random.default_rng(seed)
    return [str(word) for word in random.choice(list(WORDS), random.integers(1, 4))]


def language_of(words):
    return "de" if words[0] == "low" else "en"


def _target(words, tokenizer, with_times):
    """Token ids from the start token on."""
    ids = tokenizer.convert_tokens_to_ids
    start = [ids("<|startoftranscript|>")]
    if not words:
        return [*start, ids("<|nospeech|>"), ids("<|endoftext|>")]
    start += [ids(f"<|{language_of(words)}|>"), ids("<|transcribe|>")]
    text = tokenizer("".join(f" {word}" for word in words), add_special_tokens=False).input_ids
    if not with_times:
        return [*start, ids("<|notimestamps|>"), *text, ids("<|endoftext|>")]
    span_s = (SLOTS_S[0], SLOTS_S[len(words) - 1] + TONE_S)
    first, last = (ids(f"<|{second:.2f}|>") for second in span_s)
    return [*start, first, *text, last, ids("<|endoftext|>")]


def _teach(model, extract, tokenizer, n_steps, batch=12):
    rows = []
    for seed in range(160):
        words = spoken(seed) if seed % 5 else []
        sound = tones(words, seed) if words else hiss(seed)
        features = extract(sound, sampling_rate=RATE_HZ, return_tensors="pt")
        rows += [
            (features["input_features"][0], _target(words, tokenizer, with_times))
            for with_times in (True, False)
        ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=n_steps)
    model.train()
    for _ in range(n_steps):
        chosen = [rows[int(i)] for i in torch.randint(len(rows), (batch,))]
        longest = max(len(ids) for _, ids in chosen)
        padded = torch.full((batch, longest), -100)
        for row, (_, ids) in zip(padded, chosen, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        inputs = padded[:, :-1].clamp(min=0)
        loss = torch.nn.functional.cross_entropy(
            model(
                input_features=torch.stack([features for features, _ in chosen]),
                decoder_input_ids=inputs,
            ).logits.flatten(0, 1),
            padded[:, 1:].flatten(),
            ignore_index=-100,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


def openai_whisper(path, seed=0):
    """A checkpoint in OpenAI's format with random weights; needs openai-whisper."""
    from dataclasses import asdict

    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(seed)
    dims = ModelDimensions(80, 1500, 16, 2, 1, 51865, 448, 16, 2, 2)
    model = Whisper(dims)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    torch.save({"dims": asdict(dims), "model_state_dict": model.state_dict()}, path)
    return str(path)
