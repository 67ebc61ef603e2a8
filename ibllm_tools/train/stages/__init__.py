"""The paper's two stages, for any base LLM and encoder, on transformers' Trainer and accelerate.

```
feature stores ─┐
data files ─────┴ rows ─ Stream (mixing) ─ Collator (tokens, labels) ─ StageTrainer ─ folder
StageConfig (preset < YAML < command line) ─ start (model, encoder) ────┘
```
Stage "bind" trains bind network, prefix queries and gates on image-text pairs. Stage "instruct"
trains low-rank products, biases and norms of the LLM, on rows with and without media. Importing
this package loads nothing; its modules are imported by name.

Source: ImageBind-LLM (arXiv 2309.03905), section 3.
"""
