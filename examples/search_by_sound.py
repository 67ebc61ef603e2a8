"""Find photos, shapes and videos by a sound: all modalities share one vector space."""

from pathlib import Path

import ibllm_tools
from ibllm_tools import ImageBindVectorStore

MEDIA = Path(ibllm_tools.__file__).parent / "demo_media"

store = ImageBindVectorStore()
store.add_media(sorted(path for path in MEDIA.iterdir() if path.suffix in {".jpg", ".mp4", ".ply"}))

for document, score in store.similarity_search_with_score(MEDIA / "dog.ogg", k=3):
    print(f"{score:5.2f}  {document.metadata['modality']:6}  {document.page_content}")
