"""Small tokenizers with the markup of well-known LLMs, and random answers under a grammar.

The templates are our own short ones; each writes calls the way that its family does.
"""

import json
import random
from functools import cache

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from ibllm_tools.checkpoints import POCKET, find_folder
from ibllm_tools.grammar.vocabulary import allowed_tokens

LINES = [
    '{"name": "get_weather", "arguments": {"location": "Paris", "days": 3}}',
    '{"title": "The old boat", "tags": ["sea", "boat"], "price": 12.5, "sold": false}',
    "The weather in Paris is fine, and the sea is calm.",
    "今天巴黎的天气很好。こんにちは世界",
    "<tool_call>\n</tool_call> functions true false null 2026-11-24T10:00:00Z",
] * 8

_TURNS = (
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{%- for c in m.tool_calls or [] %}"
    "{{- '\n' if m.content or not loop.first }}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n'
    "</tool_call>{%- endfor %}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_HERMES = (
    "{%- if tools %}<|im_start|>system\nTools:{% for t in tools %}\n{{ t | tojson }}{% endfor %}"
    "<|im_end|>\n{% endif %}" + _TURNS
)
_THINKING = _HERMES.replace(
    "{{ m.content or '' }}",
    "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content or '' }}",
).replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
_LLAMA3 = (
    "<|begin_of_text|>{%- for m in messages %}"
    "{{- '<|start_header_id|>' + ('ipython' if m.role == 'tool' else m.role) }}"
    "{{- '<|end_header_id|>\n\n' }}"
    "{%- if loop.first and tools %}Tools:{% for t in tools %}{{ t | tojson(indent=4) }}"
    "{% endfor %}{% endif %}"
    "{%- if m.tool_calls %}{%- if m.tool_calls | length > 1 %}"
    "{{- raise_exception('one call at a time') }}{% endif %}"
    '{%- set f = m.tool_calls[0].function %}{"name": "{{ f.name }}", "parameters": '
    "{{- ' ' + (f.arguments | tojson) }}}{% else %}{{ m.content }}{% endif %}<|eot_id|>"
    "{%- endfor %}{%- if add_generation_prompt %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_MISTRAL = (
    "<s>{%- for m in messages %}{%- if m.role == 'user' %}"
    "{%- if tools and loop.index0 == 0 %}[AVAILABLE_TOOLS] {{ tools | tojson }}"
    "[/AVAILABLE_TOOLS]{% endif %}[INST] {{ m.content }}[/INST]"
    "{%- elif m.role == 'tool' %}{%- if m.tool_call_id | length != 9 %}"
    "{{- raise_exception('an id has nine letters') }}{% endif %}"
    '[TOOL_RESULTS] {"content": {{ m.content | tojson }}, "call_id": "{{ m.tool_call_id }}"}'
    "[/TOOL_RESULTS]{%- elif m.tool_calls %}[TOOL_CALLS] [{%- for c in m.tool_calls %}"
    "{%- if c.id is not defined or c.id | length != 9 %}"
    "{{- raise_exception('an id has nine letters') }}{% endif %}"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, '
    '"id": "{{ c.id }}"}{{ ", " if not loop.last }}{%- endfor %}]</s>'
    "{%- else %} {{ m.content }}</s>{%- endif %}{%- endfor %}"
)
_DEEPSEEK = (
    "<|bos|>{%- if tools %}{% for t in tools %}{{ t | tojson }}\n{% endfor %}{% endif %}"
    "{%- for m in messages %}{%- if m.role == 'user' %}<｜User｜>{{ m.content }}"
    "{%- elif m.role == 'tool' %}<｜tool▁output▁begin｜>{{ m.content }}<｜tool▁output▁end｜>"
    "{%- else %}<｜Assistant｜>{{ m.content or '' }}{%- if m.tool_calls %}<｜tool▁calls▁begin｜>"
    "{%- for c in m.tool_calls %}{{ '\n' if not loop.first }}<｜tool▁call▁begin｜>function"
    "<｜tool▁sep｜>{{ c.function.name + '\n```json\n' + c.function.arguments + '\n```' }}"
    "<｜tool▁call▁end｜>{% endfor %}<｜tool▁calls▁end｜>{% endif %}<｜end▁of▁sentence｜>"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)
_ARGS = (
    "<s>{%- if tools %}{{ tools | tojson }}{% endif %}{%- for m in messages %}"
    "{%- if m.role == 'assistant' %}{{ m.content }}{%- for c in m.tool_calls or [] %}"
    "[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}</s>"
    "{%- elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]"
    "{%- else %}[INST]{{ m.content }}[/INST]{% endif %}{%- endfor %}"
)
_PLAIN = (
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_NO_SYSTEM = (
    "{%- for m in messages %}{%- if m.role == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('roles must alternate') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FAMILIES = {
    "hermes": (_HERMES, ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "thinking": (_THINKING, ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "llama3": (
        _LLAMA3,
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "<|eot_id|>",
    ),
    "mistral": (
        _MISTRAL,
        [
            "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
        ],
        "</s>",
    ),
    "mistral_args": (_ARGS, ["<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[ARGS]",
                             "[TOOL_RESULTS]", "[/TOOL_RESULTS]"], "</s>"),
    "deepseek": (
        _DEEPSEEK,
        [
            "<|bos|>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>",
            "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<｜tool▁output▁begin｜>",
            "<｜tool▁output▁end｜>",
        ],
        "<｜end▁of▁sentence｜>",
    ),
    "plain": (_PLAIN, ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "no_system": (_NO_SYSTEM, ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "no_template": (None, ["<s>", "</s>"], "</s>"),
}  # fmt: skip
WITH_TOOLS = ("hermes", "thinking", "llama3", "mistral", "mistral_args", "deepseek")
WITHOUT_TOOLS = ("plain", "no_system", "no_template")


@cache
def family_tokenizer(name):
    """A byte-level BPE of about 600 tokens with a family's special tokens and template."""
    if name == "pocket":
        return PreTrainedTokenizerFast.from_pretrained(find_folder(POCKET))
    template, special, end = FAMILIES[name]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    if name in ("hermes", "thinking"):
        tokenizer.add_tokens(
            [AddedToken(text, normalized=False) for text in ("<tool_call>", "</tool_call>")]
        )
    if name == "thinking":
        tokenizer.add_tokens(
            [AddedToken(text, normalized=False) for text in ("<think>", "</think>")]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        additional_special_tokens=[token for token in special if token != end],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


@cache
def piece_tokenizer():
    """A tokenizer of LLaMA's first kind: spaces as a character, bytes as a fallback."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["\u2581", *"abcdefghijklmnopqrstuvwxyzABCDE0123456789", *'{}[]",:.-_']
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def tool(name, parameters=None, description=""):
    function = {"name": name, "description": description}
    if parameters is not None:
        function["parameters"] = parameters
    return {"type": "function", "function": function}


WEATHER = tool(
    "get_weather",
    {
        "type": "object",
        "properties": {"location": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["location"],
    },
    "Weather of a place.",
)
LAMP = tool(
    "set_lamp",
    {
        "type": "object",
        "properties": {
            "on": {"type": "boolean"},
            "color": {"enum": ["red", "blue", "深红"]},
            "level": {"type": "number", "minimum": 0, "maximum": 1},
        },
        "required": ["on", "color"],
    },
)
STOP = tool("stop_all")
TOOLS = [WEATHER, LAMP, STOP]


def write_answer(grammar, max_tokens, choose):
    """Let `choose(allowed)` write one answer; return its tokens and the state."""
    state, tokens = grammar.begin(max_tokens), []
    while len(tokens) < max_tokens and not state.finished:
        allowed = allowed_tokens(state.allowed())
        assert allowed, "nothing may follow, but the answer has not ended"
        token = state.take(choose(allowed))
        if token in grammar.words.end_ids:
            break
        tokens.append(token)
    return tokens, state


def wanderer(seed, words, likes="", pull=0.0):
    """A random chooser that prefers tokens beginning with one of `likes` with chance `pull`."""
    rng = random.Random(seed)
    liked = {i for i, text in enumerate(words.bytes) if text[:1] and chr(text[0]) in likes}

    def choose(allowed):
        pool = [token for token in allowed if token in liked] if rng.random() < pull else []
        return rng.choice(pool or allowed)

    return choose


def text_of(tokenizer, tokens):
    return tokenizer.decode(tokens, skip_special_tokens=False)


def teacher_force(grammar, ids, max_tokens=512):
    """Feed known tokens; return the place of the first one that is not allowed, or None.

    A last end token is not asked of a grammar that knows by itself that nothing may follow.
    """
    state = grammar.begin(max_tokens)
    for place, token in enumerate(ids):
        if state.finished:
            return None if token in grammar.words.end_ids else place
        if token not in allowed_tokens(state.allowed()) or state.take(token) != token:
            return place
    return None


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
