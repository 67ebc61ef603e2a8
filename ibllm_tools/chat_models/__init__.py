"""LangChain's chat model over the engine: `ChatImageBindLLM`, and what goes with it.

```
messages -> messages.read_messages -> turns, media of each turn
tools, tool_choice, response_format -> tools.make_plan -> what the answer may be (grammar)
both -> request.Request -> engine pieces -> answers.ChunkWriter -> chunks -> AIMessage
```
"""

from ibllm_tools.chat_models.counting import count_text_tokens
from ibllm_tools.chat_models.model import ChatImageBindLLM
from ibllm_tools.chat_models.provider import PROVIDER, register_provider

__all__ = ["PROVIDER", "ChatImageBindLLM", "count_text_tokens", "register_provider"]
