"""A vector store for any modality, on FAISS: exact search by cosine.

```
documents, media ─ embeddings ─ Collection (FAISS index, records) ─ search, filter, diversify
                                     │
                              storage: one file, replaced as a whole
```
"""

from ibllm_tools.vectorstores.filters import Filter
from ibllm_tools.vectorstores.folders import FolderReport, index_folder
from ibllm_tools.vectorstores.storage import STORE_FILE
from ibllm_tools.vectorstores.store import ImageBindVectorStore

__all__ = ["STORE_FILE", "Filter", "FolderReport", "ImageBindVectorStore", "index_folder"]
