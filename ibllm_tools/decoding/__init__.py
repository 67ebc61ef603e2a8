"""From logits to text: choosing the next token, and turning tokens into text as they come.

```
logits -> choose_tokens -> token id -> AnswerText.push -> text to show
          (Sampler, ConstraintState.allowed)  (TokenText, then ReasoningText, then StopText)
```

Nothing here knows the model, the media or LangChain.
"""

from ibllm_tools.decoding.constraints import Constraint, ConstraintState
from ibllm_tools.decoding.logprobs import REPLACEMENT, TokenLogprob, logprobs_of, spell
from ibllm_tools.decoding.notes import NoteNames
from ibllm_tools.decoding.reasoning import ReasoningMarkup, ReasoningText, split_reasoning
from ibllm_tools.decoding.sampling import (
    MAX_LOGPROBS,
    MAX_TOKENS,
    Sampler,
    Sampling,
    choose_tokens,
)
from ibllm_tools.decoding.text import AnswerText, StopText, TokenText, special_ids

__all__ = [
    "MAX_LOGPROBS",
    "MAX_TOKENS",
    "REPLACEMENT",
    "AnswerText",
    "Constraint",
    "ConstraintState",
    "NoteNames",
    "ReasoningMarkup",
    "ReasoningText",
    "Sampler",
    "Sampling",
    "StopText",
    "TokenLogprob",
    "TokenText",
    "choose_tokens",
    "logprobs_of",
    "special_ids",
    "spell",
    "split_reasoning",
]
