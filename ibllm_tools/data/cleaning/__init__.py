"""Cleaning of training data: rows go whose text does not fit their media, or that repeat others.

```
store ─ survey (text, similarity, vectors; one pass) ─ filters, in the order of REASONS ─ report
                                                                └ write_kept ─ another store
```
The paper leaves this open: "adopting cleaner image-text data". The order matters: cheap filters
on text first, then duplicates, then similarity, and near-duplicates among what is left, so that
of each group the row stays whose text fits best. A row has one reason, the first that fits.

Rows without media are judged by their text alone.
"""

from __future__ import annotations

from ibllm_tools.data.cleaning.options import CleaningOptions
from ibllm_tools.data.cleaning.report import CleaningReport
from ibllm_tools.data.cleaning.run import (
    Cleaning,
    check_folder,
    clean,
    write_kept,
)

__all__ = [
    "Cleaning",
    "CleaningOptions",
    "CleaningReport",
    "check_folder",
    "clean",
    "write_kept",
]
