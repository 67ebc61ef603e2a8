"""LangChain's own OpenAI classes against a running server, by LangChain's standard suites."""

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests
from serving_server import serving
from test_chat_standard import HOST, bundled_media, certificate, picture_host

from ibllm_tools import MediaPolicy
from ibllm_tools.checkpoints import POCKET_FOLDER

openai = pytest.importorskip("langchain_openai", reason="langchain-openai is the client")

# ChatOpenAI keeps one asynchronous client for all loops, so that its tests share theirs.
pytestmark = [pytest.mark.enable_socket, pytest.mark.asyncio(loop_scope="module")]
__all__ = ["bundled_media", "certificate", "picture_host"]

MEDIA = POCKET_FOLDER.parent / "demo_media"
SETTINGS = {"model": "pocket", "api_key": "a-key", "max_retries": 0}


@pytest.fixture(scope="module", autouse=True)
def address():
    policy = MediaPolicy(allowed_hosts=(HOST,), allow_private_addresses=True)
    models = {"pocket": "pocket", "other": str(POCKET_FOLDER)}
    with serving(models=models, api_keys=["a-key"], policy=policy) as found:
        SETTINGS["base_url"] = f"{found}/v1"
        yield found


@pytest.mark.usefixtures("picture_host")
class TestChat(ChatModelIntegrationTests):
    @property
    def chat_model_class(self):
        return openai.ChatOpenAI

    @property
    def chat_model_params(self):
        return {**SETTINGS, "temperature": 0, "stream_usage": True}

    # ChatOpenAI sends no schema here: the grammar makes the JSON, pocket chooses the keys.
    @property
    def supports_json_mode(self):
        return True

    @property
    def supports_image_inputs(self):
        return True

    @property
    def supports_image_urls(self):
        return True

    @property
    def supports_image_tool_message(self):
        return True

    @property
    def supports_audio_inputs(self):
        return True

    @property
    def supports_anthropic_inputs(self):
        return True

    @property
    def supports_model_override(self):
        return True

    @property
    def model_override_value(self):
        return "other"


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return openai.OpenAIEmbeddings

    @property
    def embedding_model_params(self):
        return {**SETTINGS, "check_embedding_ctx_length": False}
