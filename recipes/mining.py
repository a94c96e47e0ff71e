"""`distill mine`: read the command line's options and call `distill.mining`."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from distill.data.pairs import OptionNames, read_pairs_with_rows
from distill.data.tables import read_text_columns, read_texts
from distill.errors import BadInput
from distill.files.artefact import check_model_folder
from distill.files.outputs import check_output_folder
from distill.mining.cached import CachedScorer
from distill.mining.mine import MINED, MiningInputs, MiningSettings, check_mining_settings, mine
from distill.runtime.opening import load
from distill.wording import counted
from recipes.options import OpeningOptions, OutputPlace, two_columns

__all__ = ["MiningSource", "mine_file"]

_OPTION_NAMES = OptionNames(
    columns="--query-column, --document-column or --label-column (or --all-positive, where there are no labels)",
    skip="--skip-bad-rows",
    label_range="--label-range",
)


@dataclass(frozen=True)
class MiningSource:
    """The files of pairs and documents.

    :param columns: the label column is None if every pair is a positive
    :param clusters: the columns with the clusters of query and document, separated by a comma; None if unknown
    """

    pairs: str
    columns: tuple[str, str, str | None]
    label_range: tuple[float, float] = (0.0, 1.0)
    documents: str | None = None
    column: str = "text"
    clusters: str | None = None
    skip_bad_rows: bool = False

    def read(self) -> MiningInputs:
        """Read everything.

        :raises BadInput: on files and columns as `read_pairs` does, and clusters that are not two columns
        """
        query, document, label = self.columns
        if label is None and self.label_range != (0.0, 1.0):
            raise BadInput("--label-range is of labels, and --all-positive reads none; leave one of them out")
        pairs, rows = read_pairs_with_rows(
            self.pairs,
            two_columns(query, document, label),
            label_range=self.label_range,
            skip_bad_rows=self.skip_bad_rows,
            labelled=label is not None,
            option_names=_OPTION_NAMES,
        )
        clusters = None
        if self.clusters is not None:
            names = [name.strip() for name in self.clusters.split(",")]
            if len(names) != 2 or not all(names):
                raise BadInput(f"--clusters {self.clusters}: two columns with a comma between are expected")
            column_texts = read_text_columns(self.pairs, names, gaps=True, section="--clusters")
            clusters = ([column_texts[names[0]][row] for row in rows], [column_texts[names[1]][row] for row in rows])
        more = [] if self.documents is None else read_texts(self.documents, self.column, gaps=True)
        sources = [self.pairs, *([] if self.documents is None else [self.documents])]
        return MiningInputs(pairs, more, clusters, sources)


def mine_file(
    source: MiningSource,
    output: OutputPlace,
    settings: MiningSettings,
    models: Mapping[str, Path | None],
    *,
    opening: OpeningOptions,
    as_json: bool,
) -> None:
    """Mine candidates for the queries of a file and print a summary.

    :param models: the folders called "retriever" (None is BM25) and "teacher"
    """
    arguments, retriever_path = opening.arguments(), models["retriever"]
    check_mining_settings(settings, retriever_path, has_teacher=any(models.values()))
    if retriever_path is not None and not retriever_path.is_dir():
        raise BadInput(
            f"--retriever {retriever_path} is no model folder; bm25 is accepted, or the path of a bi-encoder's folder"
        )
    inputs = source.read()
    # realpath raises no error for links in a circle, which `load` then refuses
    places = {role: None if path is None else Path(os.path.realpath(path)) for role, path in models.items()}
    folders = dict.fromkeys(path for path in places.values() if path is not None)
    inputs = replace(inputs, sources=[*inputs.sources, *folders])
    check_output_folder(output.path, inputs=inputs.sources, ours=MINED, overwrite=True)
    for folder in folders if opening.precision != "auto" else ():  # before the first one is opened, which takes seconds
        check_model_folder(folder)
    scorers = {path: CachedScorer(load(path, **arguments), output.path / ".work" / "signals") for path in folders}
    retriever, teacher = (
        None if (path := places[role]) is None else scorers[path] for role in ("retriever", "teacher")
    )
    mined = mine(output.path, inputs, settings, retriever=retriever, teacher=teacher, overwrite=output.overwrite)
    if as_json:
        print(json.dumps(mined.counts, ensure_ascii=False, indent=2))
        return
    false_negatives = mined.counts.get("false negatives")
    for name, value in mined.counts.items():
        if name != "false negatives":
            print(f"{value:>10,}  {name}")
    if false_negatives is not None:
        for name, value in false_negatives.items():
            share = "undefined" if value is None else f"{value:.2%}"
            print(f"{share:>10}  {'' if 'left out' in name else 'false negatives '}{name}")
    n_given = len(inputs.pairs)
    print(
        f"{counted(n_given, 'given pair')} and {mined.counts['drawn']} mined → {output.path / 'pairs.jsonl'}",
        file=sys.stderr,
    )
