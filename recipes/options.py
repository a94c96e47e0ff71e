"""Options of the command line, checked and grouped: how to open a model, what to read, where to write."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distill.data.pairs import OptionNames
from distill.errors import BadInput
from distill.ray.cluster import Actors
from distill.recipe.schema import Columns

__all__ = [
    "Embedding",
    "LabelledFile",
    "OpeningOptions",
    "OutputPlace",
    "PairFile",
    "RayOptions",
    "Scoring",
    "TextFile",
    "counts_in",
    "names_in",
    "numbers_in",
    "one_of",
    "ray_options",
    "read_label_range",
    "two_columns",
]

_LARGEST = 1e12  # of a number on the command line; a larger one is a mistake
_RUNTIMES, _PRECISIONS = ("torch", "openvino", "onnx", "numpy"), ("fp32", "bf16", "auto")


@dataclass(frozen=True)
class OpeningOptions:
    """How a model is opened; None is the model's own way."""

    runtime: str | None = None
    precision: str | None = None
    n_threads: int | None = None
    max_length: int | None = None
    special_tokens_as_text: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `load`.

        :raises BadInput: for an unknown runtime or precision
        """
        if self.runtime is not None:
            one_of("--runtime", self.runtime, _RUNTIMES)
        if self.precision is not None and self.precision not in _PRECISIONS:
            raise BadInput(
                f"--precision {self.precision}: one of {', '.join(_PRECISIONS)} is accepted; int8 comes with an int8 export"
            )
        return asdict(self)


@dataclass(frozen=True)
class OutputPlace:
    """The place of a result: a file, or with Ray a folder, which may be in an object store."""

    address: str
    overwrite: bool = False

    @property
    def path(self) -> Path:
        """The place on this machine."""
        return Path(self.address)


def two_columns(query: str, document: str, label: str | None = None) -> Columns:
    """Return the columns of pairs as a recipe names them.

    :raises BadInput: if both sides are one column
    """
    if query == document:
        raise BadInput(
            f"column {query!r} is named for both sides, so each text would be matched with itself; set --query-column or "
            "--document-column"
        )
    return Columns(query=query, document=document, label=label or "label")


@dataclass(frozen=True)
class PairFile:
    """A table (or hub dataset) of pairs."""

    source: str
    query_column: str = "query"
    document_column: str = "document"
    skip_bad_rows: bool = False

    @property
    def columns(self) -> Columns:
        """The columns as a recipe names them."""
        return two_columns(self.query_column, self.document_column)


@dataclass(frozen=True)
class LabelledFile:
    """A table (or hub dataset) of pairs with labels; no label column where none is read."""

    source: str
    query_column: str = "query"
    document_column: str = "document"
    label_column: str | None = "label"
    label_range: str = "0,1"

    @property
    def columns(self) -> Columns:
        """The columns as a recipe names them."""
        return two_columns(self.query_column, self.document_column, self.label_column)

    @property
    def option_names(self) -> OptionNames:
        """What messages tell the reader to set."""
        columns = "--query-column, --document-column or --label-column"
        return OptionNames(columns=columns, skip=None, label_range="--label-range")


@dataclass(frozen=True)
class TextFile:
    """A .txt file, one text a line, or a column of a table."""

    source: str
    column: str = "text"


@dataclass(frozen=True)
class Scoring:
    """How pairs are scored, and the columns that are written beside a score.

    :param other_side: the teacher's folder, if the model reads only one side of the pairs
    :param allow_hosts: hosts to which a remote scorer may send the texts
    :param calibrated: write the column probability, by the calibration of the model's folder
    :param decide: write the column match, 1 where the score reaches the folder's threshold, else 0
    """

    other_side: Path | None = None
    allow_hosts: tuple[str, ...] = ()
    key_variable: str | None = None
    calibrated: bool = False
    decide: bool = False


@dataclass(frozen=True)
class Embedding:
    """How texts are embedded.

    :param prompt: the name of a prompt stored with the model
    :param truncate: number of first dimensions to keep; None is all
    """

    prompt: str | None = None
    truncate: int | None = None


@dataclass(frozen=True)
class RayOptions:
    """How a command runs on Ray.

    :param keep: columns of the input that are written beside the result; None keeps the texts
    """

    actors: Actors
    keep: tuple[str, ...] | None = None
    shard_rows: int = 8192


def ray_options(engine: str | None, given: Mapping[str, Any]) -> RayOptions | None:
    """Return the options of Ray; None for another engine.

    :param given: the values of `--actors`, `--actor-cpus`, `--actor-gpus`, `--ray-address`, and perhaps of `--keep` and
        `--shard-rows`; None for an option that was not given
    :raises BadInput: for an unknown engine, and for one of these options without `--engine ray`
    """
    stated = {name: value for name, value in given.items() if value is not None}
    if engine is None:
        if stated:
            option = f"--{next(iter(stated)).replace('_', '-')}"
            raise BadInput(f"{option} is of a Ray cluster; add --engine ray, or leave it out")
        return None
    one_of("--engine", engine, ("ray",))
    names = {"actors": "n", "actor_cpus": "cpus", "actor_gpus": "gpus", "ray_address": "address"}
    actors = Actors(**{names[name]: value for name, value in stated.items() if name in names})
    options = RayOptions(actors, shard_rows=stated.get("shard_rows", RayOptions.shard_rows))
    return replace(options, keep=tuple(names_in(stated["keep"])) if "keep" in stated else None)


def one_of(option: str, value: str, accepted: Sequence[str]) -> Any:
    """Return the value of an option.

    :raises BadInput: if it is not an accepted value
    """
    if value not in accepted:
        raise BadInput(f"{option} {value}: one of {', '.join(accepted)} is accepted")
    return value


def names_in(listed: str) -> list[str]:
    """Return the names of a comma-separated option.

    >>> names_in("tfidf, mbert,")
    ['tfidf', 'mbert']
    """
    return [name.strip() for name in listed.split(",") if name.strip()]


def numbers_in(option: str, text: str, form: type[int] | type[float], n: int | None = None) -> list[Any]:
    """Return the numbers of a comma-separated option.

    :param n: the required count; None is any count
    :raises BadInput: on anything else
    """
    try:
        values = [form(part) for part in text.split(",") if part.strip()]
    except ValueError:
        values = None
    if values is None or any(not abs(value) < _LARGEST for value in values) or (n is not None and len(values) != n):
        raise BadInput(
            f"{option} {text}: {'numbers' if n is None else f'{n} numbers'} with commas between are expected"
        )
    return values


def counts_in(option: str, text: str) -> list[int]:
    """Return the whole numbers from 1 of a comma-separated option.

    :raises BadInput: on anything else
    """
    counts = [int(n) for n in numbers_in(option, text, int)]
    if min([*counts, 1]) < 1:
        raise BadInput(f"{option} {text}: numbers from 1 are expected")
    return counts


def read_label_range(text: str) -> tuple[float, float]:
    """Read the lowest and the highest label, separated by a comma.

    :raises BadInput: on anything else
    """
    low, high = numbers_in("--label-range", text, float, n=2)
    if not low < high:
        raise BadInput(f"--label-range {text}: the lower end comes first, as 0,5")
    return low, high
