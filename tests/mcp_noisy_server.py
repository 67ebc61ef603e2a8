"""A stdio server whose model writes to standard output in every way that it can."""

import os
import subprocess
import sys

import anyio
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from ibllm_tools.mcp_server import McpSettings, serve_stdio


class NoisyChat(BaseChatModel):
    """Prints while it answers, and says what it can read from standard input."""

    @property
    def _llm_type(self):
        return "noisy"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        print("noise from print")
        sys.stdout.flush()
        os.write(1, b"noise from a descriptor\n")
        subprocess.run([sys.executable, "-c", "print('noise from a child')"], check=True)
        stolen = sys.stdin.read()
        message = AIMessage(f"heard {stolen!r}")
        return ChatResult(generations=[ChatGeneration(message=message)])


if __name__ == "__main__":
    anyio.run(serve_stdio, McpSettings(chat=NoisyChat(), detector=False, recognizer=False))
