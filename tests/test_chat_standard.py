"""LangChain's standard suites for chat models, without tools (not offered yet) and without network.

The suites fetch a picture and a sound over HTTP; they get bundled ones instead.
"""

import io
import wave
from pathlib import Path

import httpx
import numpy as np
import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from PIL import Image

from ibllm_tools import ChatImageBindLLM, Media
from ibllm_tools.checkpoints import POCKET_FOLDER
from ibllm_tools.media import load

MEDIA = Path(__file__).parent.parent / "ibllm_tools" / "demo_media"


def png_bytes():
    buffer = io.BytesIO()
    Image.open(MEDIA / "dog.jpg").save(buffer, "PNG")
    return buffer.getvalue()


def wav_bytes():
    sound = load(Media.from_path(MEDIA / "dog.ogg"))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound.rate_hz)
        file.writeframes((sound.samples[0] * 32767).astype(np.int16).tobytes())
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def bundled_media(monkeypatch):
    made = {"png": png_bytes, "wav": wav_bytes}

    def get(url, **_):
        return httpx.Response(200, content=made[url[-3:]](), request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    monkeypatch.setenv("LANGCHAIN_TESTS_USER_AGENT", "ibllm-tools")


class Pocket:
    """What both suites need to know of the model that ships with the package."""

    @property
    def chat_model_class(self):
        return ChatImageBindLLM

    @property
    def has_tool_calling(self):
        return False

    @property
    def has_structured_output(self):
        return False

    @property
    def supports_image_inputs(self):
        return True

    @property
    def supports_audio_inputs(self):
        return True

    @property
    def supports_video_inputs(self):
        return True

    @property
    def supports_model_override(self):
        return True

    @property
    def model_override_value(self):
        return str(POCKET_FOLDER)

    @property
    def enable_vcr_tests(self):
        return True


class TestUnit(Pocket, ChatModelUnitTests):
    pass


class TestIntegration(Pocket, ChatModelIntegrationTests):
    pass
