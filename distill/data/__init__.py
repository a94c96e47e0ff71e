"""Scored pairs and texts: every table is read and written here, split, tokenised and counted.

It knows no model.
"""

from typing import TYPE_CHECKING

from distill._public import public

if TYPE_CHECKING:
    from distill.data.pairs import (
        Asked,
        Pairs,
        Split,
        held_out_keys,
        load_parallel,
        load_split,
        load_texts,
        pairs_of,
        read_columns,
        read_pairs,
        read_pairs_with_rows,
        split_pairs,
    )

__all__ = [
    "Asked",
    "Pairs",
    "Split",
    "held_out_keys",
    "load_parallel",
    "load_split",
    "load_texts",
    "pairs_of",
    "read_columns",
    "read_pairs",
    "read_pairs_with_rows",
    "split_pairs",
]
__getattr__ = public(
    __name__,
    {
        "Asked": "pairs",
        "Pairs": "pairs",
        "Split": "pairs",
        "held_out_keys": "pairs",
        "load_parallel": "pairs",
        "load_split": "pairs",
        "load_texts": "pairs",
        "pairs_of": "pairs",
        "read_columns": "pairs",
        "read_pairs": "pairs",
        "read_pairs_with_rows": "pairs",
        "split_pairs": "pairs",
    },
)
