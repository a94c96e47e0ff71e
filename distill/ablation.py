"""An ablation as a recipe: data versions × rows.

Each row is a trained model or a baseline, beside the published values.

    data: {V1: …, V2: …}   teachers: …   baselines: …   rows: [{name, model, published: {V1: 0.2214}}, …]   smoke: …

`recipe_of` makes the ordinary recipe of one data version, so that every row is trained and scored as in a run of its
own. Rows that share a stage (an adapted encoder) share its folder. `write_table` writes the results: the published
metric with its interval, metrics that do not depend on the scale of scores (ROC-AUC, Spearman, nDCG), parameters and
training time.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from distill._moved import moved_names
from distill.errors import BadInput
from distill.files.artefact import write_json
from distill.files.outputs import inert
from distill.metrics.names import METRIC_NAMES
from distill.recipe.reading import read_raw, validated
from distill.recipe.schema import (
    Baseline,
    Data,
    Encoder,
    FreshBackbone,
    Name,
    Paragraphs,
    Recipe,
    Section,
    Teacher,
    Training,
    merge_training,
)
from distill.report.templates import render

if TYPE_CHECKING:
    from distill.metrics.measures import Estimate  # takes seconds

__all__ = [
    "STAND_INS",
    "Ablation",
    "AblationCell",
    "AblationRow",
    "ancestors",
    "check_names",
    "load_ablation",
    "low_spread_note",
    "recipe_of",
    "stand_ins_of",
    "write_table",
]

__getattr__ = moved_names(__name__)  # names from before the rename

STAND_INS = "stand-ins"
_METRIC = "ablation_mse"
_SHOWN = {key: METRIC_NAMES[key] for key in ("roc_auc", "spearman", "ndcg_at_10")}
_CLEARLY = 0.01  # a smaller difference in ROC-AUC gets no note


class TableRowSettings(Section):
    """One row of the table."""

    name: str
    """The row's name in the table."""
    model: Name
    """The name of a teacher or a baseline of this recipe."""
    published: dict[Name, float] = Field(default_factory=dict)
    """The published value for each data version."""
    parameters: str | None = None
    """The published number of parameters, such as "135M"."""


class Pretraining(Section):
    """Pretraining of each stand-in with InfoNCE. Real encoders are pretrained, too, on web data."""

    pairs: int = Field(ge=8)
    """Number of generated pairs. Their seed differs from that of the rows' pairs."""
    training: Training = Training()


class Smoke(Section):
    """Stand-ins with which an ablation takes minutes on a CPU: generated pairs, tiny encoders, a local server."""

    data: dict[Name, Data]
    backbones: dict[str, FreshBackbone]
    """The stand-in for each backbone, by the backbone's name."""
    pretraining: Pretraining | None = None
    """How stand-ins are pretrained. None starts every row from random weights."""
    max_length: int = 256
    training: dict[str, Any] = Field(default_factory=dict)


class Ablation(Section):
    """The recipe of a whole ablation table."""

    name: Name
    output_dir: str | None = None
    seed: int = 42
    overwrite: bool = False
    data: dict[Name, Data] = Field(min_length=1)
    teachers: dict[Name, Teacher] = Field(default_factory=dict)
    baselines: dict[Name, Baseline] = Field(default_factory=dict)
    training: Training = Training()
    rows: tuple[TableRowSettings, ...] = Field(min_length=1)
    bootstrap: int = Field(default=1000, ge=1)
    smoke: Smoke | None = None

    @property
    def folder(self) -> Path:
        """The folder of all versions and of the table."""
        return Path(self.output_dir or f"runs/{self.name}")

    @model_validator(mode="before")
    @classmethod
    def _merge_training(cls, raw: Any) -> Any:
        return merge_training(raw)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Ablation":
        problems = []
        names = [row.name for row in self.rows]
        problems += [f"rows: {name!r} is there twice" for name in dict.fromkeys(names) if names.count(name) > 1]
        for number, row in enumerate(self.rows):
            if row.model not in self.teachers and row.model not in self.baselines:
                known = ", ".join([*self.teachers, *self.baselines])
                problems.append(f"rows.{number}.model: no teacher or baseline is called {row.model!r}; known: {known}")
            problems += [
                f"rows.{number}.published.{version}: no data version of that name; known: {', '.join(self.data)}"
                for version in row.published
                if version not in self.data
            ]
        if problems:
            raise ValueError("\n".join(problems))
        return self


def load_ablation(path: str | Path, overrides: Sequence[str] = (), *, smoke: bool = False) -> Ablation:
    """Read an ablation recipe and validate it with the recipe of each of its versions.

    :param smoke: replace data, backbones and training with those of the section `smoke`
    :raises BadInput: with one line per problem
    """
    raw = read_raw(path, overrides)
    if smoke:
        raw = _with_stand_ins(raw, path)
    ablation = validated(Ablation, raw, path)
    for version in ablation.data:
        recipe_of(ablation, version)
    return ablation


def _with_stand_ins(raw: dict[str, Any], path: str | Path) -> dict[str, Any]:
    settings = raw.get("smoke")
    if not isinstance(settings, Mapping):
        raise BadInput(f"{path} has no section smoke; say there what stands in for the models and the data")
    smoke = validated(Smoke, settings, path)
    folder = f"{raw.get('output_dir') or Path('runs', str(raw.get('name')))}-smoke"

    def shrunk_section(section: Mapping[str, Any]) -> dict[str, Any]:
        shrunk = {key: value for key, value in section.items() if key not in ("training", "lora")}
        if isinstance(section.get("backbone"), str):
            stand_in = smoke.backbones.get(section["backbone"])
            if stand_in is None:
                raise BadInput(f"{path}: smoke.backbones has nothing for {section['backbone']}")
            is_pretrained = smoke.pretraining is not None
            shrunk["backbone"] = (
                _stand_in(Path(folder), section["backbone"]) if is_pretrained else stand_in.model_dump()
            )
        if "backbone" in section:
            shrunk["max_length"] = smoke.max_length
        return shrunk

    sections = {
        part: {
            name: shrunk_section(section) if isinstance(section, Mapping) else section
            for name, section in raw[part].items()
        }
        for part in ("teachers", "baselines")
        if isinstance(raw.get(part), Mapping)  # the validation below reports anything else
    }
    training = {"precision": _smoke_precision(raw), **smoke.training}
    return {**raw, **sections, "data": settings["data"], "training": training, "output_dir": folder}


def _smoke_precision(raw: Mapping[str, Any]) -> Any:
    """Return the stated precision of a recipe or an override. fp16 becomes auto, because a smoke run needs no GPU."""
    training = raw.get("training")
    precision = training.get("precision", "auto") if isinstance(training, Mapping) else "auto"
    return "auto" if precision == "fp16" else precision


def _stand_in(folder: Path, backbone: str) -> str:
    return str(folder.resolve() / STAND_INS / "teachers" / _short(backbone))


def _short(backbone: str) -> str:
    """Return a model's name in a form that can be a folder's name.

    >>> _short("sentence-transformers/all-MiniLM-L6-v2")
    'sentence-transformers--all-MiniLM-L6-v2'
    """
    return backbone.replace("/", "--")


def stand_ins_of(ablation: Ablation, models: Iterable[str]) -> Recipe | None:
    """Return the recipe that pretrains the stand-ins of these models; None if there is nothing to pretrain.

    The recipe's teachers are saved in the folders that the backbones of the smoke run's ablation name.
    """
    smoke = ablation.smoke
    if smoke is None or smoke.pretraining is None:
        return None
    used_backbones = {_backbone(ablation, model) for model in models}
    teachers = {
        _short(name): {
            "kind": "bi_encoder",
            "backbone": settings.model_dump(),
            "loss": "infonce",
            "max_length": smoke.max_length,
        }
        for name, settings in smoke.backbones.items()
        if _stand_in(ablation.folder, name) in used_backbones
    }
    raw = {
        "name": f"{ablation.name}-{STAND_INS}",
        "output_dir": str(ablation.folder / STAND_INS),
        "seed": ablation.seed + 1,
        "data": {"train": "bundled", "bundled_pairs": smoke.pretraining.pairs},
        "teachers": teachers,
        "training": {"precision": ablation.training.precision}
        | smoke.pretraining.training.model_dump(exclude_unset=True),
    }
    return validated(Recipe, raw, f"{ablation.name}, {STAND_INS}") if teachers else None


def _backbone(ablation: Ablation, model: str) -> object:
    """Return the backbone that a model starts from, directly or through other models; None if it has no backbone."""
    if model in ablation.teachers:
        return ablation.teachers[ancestors(ablation, model)[0]].backbone
    baseline = ablation.baselines[model]
    if isinstance(baseline, Paragraphs):
        return _backbone(ablation, baseline.model)
    return baseline.backbone if isinstance(baseline, Encoder) else None


def check_names(ablation: Ablation, only: Sequence[str], versions: Sequence[str]) -> None:
    """Check the models and the data versions that are asked for.

    :raises BadInput: if a row or a version does not exist
    """
    known = [row.model for row in ablation.rows]
    if unknown := [name for name in only if name not in known]:
        raise BadInput(f"--rows {unknown[0]}: no row has that model; there are {', '.join(known)}")
    if unknown := [name for name in versions if name not in ablation.data]:
        raise BadInput(f"--versions {unknown[0]}: no data version of that name; there are {', '.join(ablation.data)}")


def recipe_of(ablation: Ablation, version: str) -> Recipe:
    """Return the recipe of one data version, with the teachers and baselines and without a student."""
    raw = {
        "name": f"{ablation.name}-{version}",
        "output_dir": str(ablation.folder / version),
        "seed": ablation.seed,
        "overwrite": ablation.overwrite,
        "data": ablation.data[version].model_dump(),
        "teachers": {name: teacher.model_dump() for name, teacher in ablation.teachers.items()},
        "training": ablation.training.model_dump(),
        "benchmark": {
            "bootstrap": ablation.bootstrap,
            "baselines": {name: baseline.model_dump() for name, baseline in ablation.baselines.items()},
        },
    }
    return validated(Recipe, raw, f"{ablation.name}, {version}")


def ancestors(recipe: Recipe | Ablation, name: str) -> list[str]:
    """Return the chain of teachers that a teacher starts from, the earliest first, and the teacher itself last.

    >>> from distill.recipe.schema import Teacher
    >>> start = Teacher(kind="mlm", backbone="some/encoder")
    >>> after = Teacher(kind="bi_encoder", backbone={"teacher": "adapted"})
    >>> ancestors(Recipe(name="x", data={"train": "bundled"}, teachers={"adapted": start, "bi": after}), "bi")
    ['adapted', 'bi']
    """
    teacher = recipe.teachers[name]
    if not isinstance(teacher, Teacher) or isinstance(teacher.backbone, str | FreshBackbone):
        return [name]
    return [*ancestors(recipe, teacher.backbone.teacher), name]


# ---------------------------------------------------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AblationCell:
    """One model on one data version.

    :param metrics: the metrics with their intervals, by name
    :param spread: standard deviation of the model's scores in [0, 1]
    :param seconds: training time, including that of the teachers it starts from
    :param problem: the reason why there are no values
    """

    metrics: Mapping[str, "Estimate"]
    spread: float | None = None
    n_parameters: int | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class AblationRow:
    """One line of the table, over all data versions."""

    name: str
    published: Mapping[str, float]
    cells: Mapping[str, AblationCell]
    published_parameters: str | None = None


def low_spread_note(name: str, cell: AblationCell, others: Mapping[str, AblationCell]) -> str | None:
    """Return a note if a model beats another in the published metric but ranks clearly worse, with less spread scores.

    The squared error of (cos + 1)/2 rewards scores near the labels' mean. It says little about which pair is better.
    """
    worse = []
    for other_name, other in others.items():
        lacking = {_METRIC, "roc_auc"} - (set(cell.metrics) & set(other.metrics))
        if other_name == name or lacking or cell.spread is None or other.spread is None:
            continue
        wins = cell.metrics[_METRIC].value < other.metrics[_METRIC].value
        auc_gap = other.metrics["roc_auc"].value - cell.metrics["roc_auc"].value
        if wins and auc_gap > _CLEARLY and cell.spread < other.spread:
            worse.append((auc_gap, other_name, other))
    if not worse:
        return None
    _, other_name, other = max(worse)
    return (
        f"lower error than {other_name}, but ranks worse (ROC-AUC {cell.metrics['roc_auc'].value:.3f} against "
        f"{other.metrics['roc_auc'].value:.3f}): its scores are squeezed together (spread {cell.spread:.3f} against {other.spread:.3f})"
    )


def write_table(
    title: str, rows: Sequence[AblationRow], versions: Sequence[str], notes: Sequence[str], folder: Path
) -> None:
    """Write `ablation.json`, `.csv`, `.md` and `.html`, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    value = {
        "title": title,
        "metric": _METRIC,
        "versions": list(versions),
        "notes": list(notes),
        "rows": [_as_json(row) for row in rows],
    }
    write_json(folder / "ablation.json", value)
    header, lines = _cells(rows, versions)
    remarks = [
        *notes,
        *(f"{row.name}, {v}: {note}" for row in rows for v in versions for note in _remarks(row.cells.get(v))),
    ]
    for name, text in (
        ("ablation.csv", _csv(header, lines)),
        ("ablation.md", _markdown(title, header, lines, remarks)),
        (
            "ablation.html",
            render("ablation.html", title=title, explained=_EXPLAINED, header=header, lines=lines, remarks=remarks),
        ),
    ):
        temporary = folder / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / name)


def _as_json(row: AblationRow) -> dict[str, Any]:
    cells = {
        version: {**asdict(cell), "metrics": {name: value.to_dict() for name, value in cell.metrics.items()}}
        for version, cell in row.cells.items()
    }
    published = {"published": dict(row.published), "published_parameters": row.published_parameters}
    return {"name": row.name, **published, "ours": cells}


def _remarks(cell: AblationCell | None) -> tuple[str, ...]:
    if cell is None:
        return ()
    return cell.notes if cell.problem is None else (f"not run: {cell.problem}",)


def _cells(rows: Sequence[AblationRow], versions: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return the table as text: a header and one list of cells for each row."""
    header = ["model", "parameters published", "parameters"]
    for version in versions:
        header += [
            f"{version} published",
            f"{version} ours",
            f"{version} 95 %",
            *(f"{version} {name}" for name in _SHOWN.values()),
            f"{version} training",
        ]
    lines = []
    for row in rows:
        counts = [cell.n_parameters for cell in row.cells.values() if cell.n_parameters]
        line = [row.name, row.published_parameters or "–", _millions(counts[0]) if counts else "–"]
        for version in versions:
            cell = row.cells.get(version)
            published = row.published.get(version)
            line.append("–" if published is None else f"{published:.4f}")
            line += ["–"] * (3 + len(_SHOWN)) if cell is None else _version_cells(cell)
        lines.append(line)
    return header, lines


def _version_cells(cell: AblationCell) -> list[str]:
    ours = cell.metrics.get(_METRIC)
    values = [cell.metrics.get(name) for name in _SHOWN]
    return [
        "–" if ours is None else f"{ours.value:.4f}",
        "–" if ours is None or ours.low is None else f"{ours.low:.4f}–{ours.high:.4f}",
        *("–" if value is None else f"{value.value:.4f}" for value in values),
        "–" if cell.seconds is None else f"{cell.seconds:,.0f} s",
    ]


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"


def _csv(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([header, *([cell if cell != "–" else "" for cell in line] for line in lines)])
    return buffer.getvalue()


def _markdown(title: str, header: Sequence[str], lines: Sequence[Sequence[str]], remarks: Sequence[str]) -> str:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    table = [row(header), row(["---"] + ["---:"] * (len(header) - 1)), *map(row, lines)]
    return (
        inert("\n".join([f"# {title}", "", _EXPLAINED, "", *table, "", *(f"- {remark}" for remark in remarks)])) + "\n"
    )


_EXPLAINED = (
    "Published and ours: the mean of (score − label)², the score being (cosine + 1)/2 or the probability of a "
    "cross-encoder; lower is better. ROC-AUC, Spearman and nDCG@10: higher is better, and blind to the scale of scores. "
    "Training: seconds, with those of what a model starts from."
)
