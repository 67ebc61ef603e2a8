"""A tiny random ImageBindLLM folder, so that the surface is tested without trained weights.

Its answers are letters without sense, but they depend on the medium, the prompt and the seed.
"""

import json

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ibllm_tools.cache import VisualCache
from ibllm_tools.encoder import ImageBind, ImageBindConfig
from ibllm_tools.model import ImageBindLLM, ImageBindLLMProcessor
from ibllm_tools.preprocess import PreprocessConfig

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
THINKING_TEMPLATE = CHAT_TEMPLATE.replace(
    "{{ m['content'] }}",
    "{% if m['reasoning_content'] %}<think>{{ m['reasoning_content'] }}</think>{% endif %}"
    "{{ m['content'] }}",
).replace("<|assistant|>{% endif %}", "<|assistant|><think>{% endif %}")
SPECIAL = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CONTEXT, JOINT, WIDTH = 512, 16, 32
CONCEPTS = [("dog", "狗"), ("sea", "海"), ("car", "汽车"), ("rain", "雨")]


def byte_tokenizer(*, thinks=False):
    """One token per byte, so that a character may take several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    marks = ["<think>", "</think>"] if thinks else []
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet, *marks])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|end|>",
        additional_special_tokens=[*SPECIAL[1:], *marks],
        chat_template=THINKING_TEMPLATE if thinks else CHAT_TEMPLATE,
    )


def tiny_encoder():
    sizes = {"width": 16, "n_layers": 1, "n_heads": 2}
    return ImageBind(
        ImageBindConfig(
            joint_dim=JOINT,
            vision={**sizes, "image_px": 32, "patch_px": 16},
            text={**sizes, "vocab_size": 512 + 100 + 2, "n_context": 16},
            audio={**sizes, "n_frames": 204, "patch_px": 32, "stride_px": 32, "drop_path": 0.0},
            depth={**sizes, "image_px": 32},
            thermal={**sizes, "image_px": 32},
            imu={**sizes, "drop_path": 0.0, "head_dropout": 0.0},
            point={
                **sizes,
                "n_groups": 8,
                "group_size": 8,
                "mlp_channels": (8, 16, 16),
                "mlp_out": 16,
                "projection_dim": 16,
                "drop_path": 0.0,
            },
        )
    ).eval()


def save_tiny_model(folder, seed=0, n_context=CONTEXT, *, thinks=False):
    """Write a whole model folder and return it; tools take room, one byte being a token."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer(thinks=thinks)
    llm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=n_context,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.4,
        )
    )
    letters = tokenizer.encode("abcdefghijklmnopqrstuvwxyz ", add_special_tokens=False)
    silent = [token for token in range(len(tokenizer)) if token not in letters]
    encoder = tiny_encoder()
    model = ImageBindLLM.from_llm(llm, encoder, VisualCache(torch.randn(20, JOINT)))
    with torch.no_grad():
        model.llm.lm_head.weight[silent] = 0  # answers are letters, and never end early
        model.gates.fill_(2.0)
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    sizes = PreprocessConfig(
        image_px=32, depth_px=32, thermal_px=32, n_points=256, text_context=16, text_merges=100
    )
    ImageBindLLMProcessor(tokenizer, sizes).save_pretrained(folder)
    concepts = [{"name": en, "name_zh": zh} for en, zh in CONCEPTS]
    (folder / "concepts.json").write_text(json.dumps(concepts), encoding="utf-8")
    return folder
