"""How a bound vector reaches the LLM: an attention function that adds to the stock one's result.

```
bound vector + prefix query -> value projection -> tanh(gate) -> injection (L, B, 1, H, D)
LLM layer: stock attention (B, T, H, D) + injection[layer] -> output projection
```

The values are computed once per request and travel as the call argument `injection`; no module
holds them, so neither threads nor rows of a batch can mix them up. `PerToken` gives the tokens of
one row different media. L counts the injected layers, which are the last ones of the LLM. Nothing
here knows media or how an LLM is loaded.
"""

from ibllm_tools.injection.attention import (
    STOCK_ATTENTION,
    add_injection,
    add_word_offsets,
    attend_to_adapter,
    attention_name,
    eager_attention,
    register_attention,
    sdpa_attention,
)
from ibllm_tools.injection.forms import (
    AdapterTokens,
    Injection,
    LateValues,
    PerRow,
    PerToken,
    WordOffsets,
    closed_rows,
    expand_rows,
    join_rows,
    row_tensors,
    with_row_tensors,
)
from ibllm_tools.injection.values import adapter_tokens, gated_values

__all__ = [
    "STOCK_ATTENTION",
    "AdapterTokens",
    "Injection",
    "LateValues",
    "PerRow",
    "PerToken",
    "WordOffsets",
    "adapter_tokens",
    "add_injection",
    "add_word_offsets",
    "attend_to_adapter",
    "attention_name",
    "closed_rows",
    "eager_attention",
    "expand_rows",
    "gated_values",
    "join_rows",
    "register_attention",
    "row_tensors",
    "sdpa_attention",
    "with_row_tensors",
]
