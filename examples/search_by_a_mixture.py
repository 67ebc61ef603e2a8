"""Search by a photo and words at once, and move the weight from the one to the other."""

from pathlib import Path

import ibllm_tools
from ibllm_tools import ImageBindRetriever, ImageBindVectorStore

MEDIA = Path(ibllm_tools.__file__).parent / "demo_media"

store = ImageBindVectorStore()
store.add_media(sorted(path for path in MEDIA.iterdir() if path.suffix in {".ogg", ".ply"}))
retriever = ImageBindRetriever(vectorstore=store, k=2)

for weight in (0.1, 0.5, 0.9):
    # A text is a plain string; a file is a Path, because a string never opens one.
    found = retriever.invoke([(MEDIA / "dog.jpg", weight), ("sea", 1 - weight)])
    names = ", ".join(document.page_content for document in found)
    print(f"{weight:.1f} dog photo + {1 - weight:.1f} 'sea': {names}")
