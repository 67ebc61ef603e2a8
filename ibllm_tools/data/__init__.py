"""Training data: from files that people have to examples, and from examples to stored features.

```
files ─ rows ─ building ─ Source (examples) ─ store (features) ─ cleaning ─ store
        │      └ conversations, columns, placing (where media may lie)
        └ json_rows, tables, tars, parquet, folders
```
Importing this package loads nothing; its modules are imported by name.
"""
