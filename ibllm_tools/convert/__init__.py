"""Released ImageBind-LLM files → a folder that `ImageBindLLM.from_pretrained` opens.

```
imagebind_huge.pth (+ point checkpoint) → encoder/     one safetensors file per trunk
LLaMA folder                            → llm/         shards, one after another
7B.pth                                  → adapter.safetensors, config.json
knn.index                               → cache/
```
"""

from ibllm_tools.convert.folder import convert

__all__ = ["convert"]
