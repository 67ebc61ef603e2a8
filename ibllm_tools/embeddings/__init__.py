"""Text, pictures, sounds, shapes and their mixtures in one vector space.

```
texts or rows of media ─ rows ─ batches: load + preprocess (threads, ahead) ─ encode ─ unit vectors
```
"""

from ibllm_tools.embeddings.imagebind import ImageBindEmbeddings
from ibllm_tools.embeddings.rows import MediaFile, Medium, Query, Row

__all__ = ["ImageBindEmbeddings", "MediaFile", "Medium", "Query", "Row"]
