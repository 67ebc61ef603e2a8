"""Find photos, shapes and videos by a sound: all modalities share one vector space."""

from pathlib import Path

import numpy as np

import ibllm_tools
from ibllm_tools import ImageBindEmbeddings

MEDIA = Path(ibllm_tools.__file__).parent / "demo_media"

embeddings = ImageBindEmbeddings()
files = sorted(path for path in MEDIA.iterdir() if path.suffix in {".jpg", ".mp4", ".ply"})
library = np.array(embeddings.embed_media(files))
[query] = embeddings.embed_media([MEDIA / "dog.ogg"])

similarities = library @ np.array(query)
for index in similarities.argsort()[::-1]:
    print(f"{similarities[index]:5.2f}  {files[index].name}")
