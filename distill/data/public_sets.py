"""Public sets of pairs that recipes read: their place on the hub, and where `distill fetch-data` writes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PUBLIC_SETS", "PublicSet", "advice_for"]


@dataclass(frozen=True)
class PublicSet:
    """A set on the hub, and the files that it is written to.

    :param folder: folder of the files, below the output
    :param hub: name of the dataset
    :param configuration: configuration of the dataset; None if it has only one
    :param revision: the commit to read; None reads the newest
    :param columns: name in our files → name on the hub
    :param splits: name of our file → split on the hub
    :param elsewhere: name of our file → names of the same file in other collections
    """

    folder: str
    hub: str
    configuration: str | None
    revision: str | None
    licence: str
    columns: Mapping[str, str]
    splits: Mapping[str, str]
    elsewhere: Mapping[str, tuple[str, ...]]


_PAIRS = {"score": "score", "sentence1": "sentence1", "sentence2": "sentence2"}

PUBLIC_SETS: Mapping[str, PublicSet] = {
    "stsb": PublicSet(
        folder="stsb_en",
        hub="mteb/stsbenchmark-sts",
        configuration=None,
        revision="b0fddb56ed78048fa8b90373c8a3cfc37b684831",
        licence="CC BY-SA 4.0",
        columns=_PAIRS,
        splits={"train.csv": "train", "dev.csv": "validation"},
        elsewhere={"train.csv": ("stsb_train",), "dev.csv": ("stsb_dev",)},
    ),
    "korsts": PublicSet(
        folder="korsts",
        hub="dkoterwa/kor-sts",
        configuration=None,
        revision="016f35f9b961daaaa7a352e927084e3da662ac1f",
        licence="CC BY-SA 4.0",
        columns=_PAIRS,
        splits={"train.csv": "train", "dev.csv": "valid"},
        elsewhere={"train.csv": ("korsts_train", "sts-train"), "dev.csv": ("korsts_dev", "sts-dev")},
    ),
    "ko_en": PublicSet(
        folder="ko_en_parallel",
        hub="sentence-transformers/parallel-sentences-tatoeba",
        configuration="en-ko",
        revision=None,
        licence="CC BY 2.0",
        columns={"ko": "non_english", "en": "english"},
        splits={"train.csv": "train"},
        elsewhere={"train.csv": ("train",)},
    ),
}
"""The sets by the name that `distill fetch-data` takes. Scores are from 0 to 5; ko_en is sentences in two languages."""


def advice_for(path: Path) -> str:
    """Return how to get a missing file that belongs to a public set; "" for any other file.

    >>> advice_for(Path("data/korsts/dev.csv")), advice_for(Path("mine.csv"))
    ('; distill fetch-data korsts writes it', '')
    """
    for name, public_set in PUBLIC_SETS.items():
        if path.parent.name == public_set.folder and path.name in public_set.splits:
            output = path.parent.parent
            option = "" if output == Path("data") else f" -o {output}"
            return f"; distill fetch-data {name}{option} writes it"
    return ""
