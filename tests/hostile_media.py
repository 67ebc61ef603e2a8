"""What the tests of hostile media share: a block of bad bytes, and the refusal it must meet."""

import base64
import time
import warnings

import pytest
from media_samples import sample

from ibllm_tools.errors import MediaError
from ibllm_tools.media import load

B64 = base64.b64encode(sample("image.png")).decode()
LIMIT_S = 5.0


def block(data, modality=None, **more):
    extras = {"name": "bad.bin"} | ({"modality": modality} if modality else {})
    return {"type": "file", "base64": base64.b64encode(data).decode(), "extras": extras, **more}


def refused(given, match="", policy=None):
    """The message of the MediaError that `given` must raise within seconds of computing."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MediaError) as caught:
            load(given, policy)
    assert time.process_time() - start < LIMIT_S
    message = str(caught.value)
    assert len(message) < 700
    assert match in message
    return message
