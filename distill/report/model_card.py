"""Write model cards: a `README.md` in each model folder of a run, with description, quality, speed and usage.

The template `model_card.md` is filled with the numbers of the report and of the folders' `artefact.json`, when the
report is written. The metadata at its top are for the Hugging Face hub. A card describes the model and is not part of
its revision.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.errors import BadInput, JobFailed
from distill.files.artefact import (
    ASYMMETRIC,
    CARD,
    Artefact,
    check_model_folder,
    check_unchanged,
    read_card,
    read_json,
    write_text,
)
from distill.files.outputs import inert
from distill.metrics.names import METRIC_NAMES
from distill.metrics.standing import above_chance, first_teacher, floor_of, is_level_with_floor, share_of
from distill.recipe.black_box import BLACK_BOXES
from distill.recipe.schema import TokenTeacher
from distill.recipe.token_teachers import TOKEN_TEACHERS
from distill.report.board_scores import BoardScore, board_scores, with_board_scores
from distill.report.templates import render
from distill.report.words import speed_share, worth_in_parts
from distill.run import Run
from distill.wording import counted, difference_in_words, label_loss_in_words, values_in_words

__all__ = ["push", "use_of", "write_model_cards"]

log = logging.getLogger(__name__)
_NATURE = {
    "cross_encoder": "cross-encoder: one score for a pair of texts",
    "bge_m3": "BGE-m3: an embedding, token weights and token vectors of each text, compared by three scores",
    "late_interaction": "late-interaction model: vectors of each text's tokens, which are compared with those of another text",
}
_HIDDEN = [".*", "*/.*"]  # patterns of what starts with a dot, in the folder and below; it is no part of a model
_ENDING = {"openvino": ', backend="openvino"', "onnx": ', backend="onnx"', "torch": ""}


def write_model_cards(run: Run, result: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
    """Write the `README.md` of every model that the report measured.

    :param result: the content of `report/benchmark.json`
    :param folders: the folders of the models in its rows, by name
    """
    exports = _exports(run)
    for row in result["rows"]:
        folder = folders.get(row["name"])
        artefact = None if folder is None else read_card(folder)
        if folder is not None and artefact is not None:
            boards = board_scores(folder)
            text = _text(run, row, result, artefact, exports, boards)
            write_text(folder / "README.md", with_board_scores(text, boards))


def _exports(run: Run) -> dict[str, Mapping[str, Any]]:
    """Return the result of each export's comparison with torch, by the folder's name."""
    found = {path.name: read_card(path) for path in sorted((run.folder / "exports").glob("*"))}
    return {
        name: card.details["parity"] for name, card in found.items() if card is not None and "parity" in card.details
    }


def _own_parity(row: Mapping[str, Any], artefact: Artefact) -> dict[str, Mapping[str, Any]]:
    """Return the result of a teacher export's comparison with torch, {} for other rows."""
    found = artefact.details.get("parity") if row["role"] == "teacher_export" else None
    return {} if found is None else {row["name"]: found}


def _text(
    run: Run,
    row: Mapping[str, Any],
    result: Mapping[str, Any],
    artefact: Artefact,
    exports: Mapping[str, Any],
    boards: Sequence[BoardScore],
) -> str:
    """Return the filled `model_card.md`.

    A black-box teacher gets no instructions for loading. Black boxes and models that compare tokens get no metadata.
    """
    is_model = row["kind"] not in BLACK_BOXES
    parities = exports if row["role"] in ("student", "export") else _own_parity(row, artefact)
    card = render(
        "model_card.md",
        title=f"{run.recipe.name}: {row['name']}",
        box=None if is_model else _box(run, row),
        what=_what(row, result) if is_model else None,
        quality=_quality(row, result),
        speed=_speed(row, result["environment"]) if is_model else None,
        parity=_parity(parities) if is_model else None,
        use=use_of(row, artefact) if is_model else None,
        origin=_origin(run, row, artefact, result),
        limits=_limits(run, result),
    )
    is_known = is_model and artefact.kind not in TOKEN_TEACHERS
    return f"{_metadata(run, row, result, artefact, boards)}\n\n{inert(card)}" if is_known else inert(card)


def _box(run: Run, row: Mapping[str, Any]) -> dict[str, str]:
    box = run.recipe.black_boxes.get(row["name"])
    return {"name": row["name"], "said": "no model" if box is None else f"no model: {box.in_words}"}


def _metadata(
    run: Run, row: Mapping[str, Any], result: Mapping[str, Any], artefact: Artefact, boards: Sequence[BoardScore]
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    cross, card = artefact.kind == "cross_encoder", run.recipe.card
    task = "text-ranking" if cross else "sentence-similarity"
    source = str(result["data"]["source"])
    results = [
        EvalResult(
            task_type=task,
            dataset_type="custom" if "/" not in source or Path(source).exists() else source,
            dataset_name=f"{run.recipe.name} (evaluation)",
            metric_type=name,
            metric_value=round(estimate["value"], 4),
            metric_name=METRIC_NAMES.get(name, name),
        )
        for name, estimate in row["metrics"].items()
    ]
    results += [
        EvalResult(
            task_type=score.type,
            dataset_type="mteb",
            dataset_name=score.task,
            dataset_revision=score.data,
            metric_type=score.metric,
            metric_value=round(score.score, 4),
        )
        for score in boards
    ]
    tags = ["sentence-transformers", "cross-encoder" if cross else "feature-extraction", "knowledge-distillation"]
    data = ModelCardData(
        model_name=f"{run.recipe.name}-{row['name']}",
        library_name="sentence-transformers",
        pipeline_tag=task,
        tags=[*tags, *([row["runtime"]] if row["runtime"] != "torch" else [])],
        language=list(card.languages) or None,
        license=card.license,
        base_model=_hub_parents(run) or None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml().strip()}\n---"


def _hub_parents(run: Run) -> list[str]:
    """Return the names of backbones that come from the hub."""
    backbones = [teacher.backbone for teacher in run.recipe.models.values()]
    backbones += [
        black_box.backbone for black_box in run.recipe.black_boxes.values() if isinstance(black_box, TokenTeacher)
    ]
    if run.recipe.student is not None:
        backbones.append(run.recipe.student.backbone)
    names = [backbone for backbone in backbones if isinstance(backbone, str)]
    return list(
        dict.fromkeys(name for name in names if not name.startswith(("/", ".", "~")) and not Path(name).exists())
    )


def _what(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    metric = result["primary_metric"]
    floor = floor_of(result["rows"], metric)
    teacher_row = first_teacher(result["rows"])
    teacher = None if teacher_row is None else teacher_row["name"]
    of_itself = teacher is None or row["role"] == "teacher"
    is_taught, is_copy = row["role"] in ("stage", "student", "export"), row["role"] == "teacher_export"
    whose = "its" if is_taught else "the"  # control and untrained student have no teacher
    return {
        "kind": _NATURE.get(row["kind"], "bi-encoder: vectors whose cosine is the match of two texts"),
        "millions": row["parameters"] / 1e6,
        "size_mb": row["size_mb"],
        "runtime": row["runtime"],
        "precision": row["precision"],
        "floor": floor["name"] if row.get("under_floor") and floor is not None else None,
        "level_with": floor["name"] if floor is not None and is_level_with_floor(row, floor, result) else None,
        "problem": row.get("problem"),
        "kept": None if of_itself or not row.get("retention") else share_of(row, teacher_row, metric),
        "metric": f"{METRIC_NAMES.get(metric)}{above_chance(metric)}",
        "verb": "keeps" if is_taught or is_copy else "reaches",
        "of": f"`{teacher}` in torch" if is_copy else f"{whose} teacher, `{teacher}`,",
        "speedup": row.get("speedup"),
        "split": speed_share(row),
    }


def _quality(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    teacher = first_teacher(result["rows"])
    compared = [
        comparison
        for comparison in result["comparisons"]
        if row["name"] in (comparison["name"].split(" − ")[0], comparison["name"].split(" − ")[-1])
    ]
    return {
        "n_pairs": result["data"]["n_pairs"],
        "n_queries": result["data"]["n_queries"],
        "lines": [
            {
                **estimate,
                "name": METRIC_NAMES.get(name, name),
                "kept": _percent(share_of(row, teacher, name) if row.get("retention") else None),
                "kept_of_best": _percent((row.get("retention_best") or {}).get(name)),
                "worth": worth_in_parts(row, name),
            }
            for name, estimate in row["metrics"].items()
        ],
        "comparisons": [
            (
                comparison["name"],
                difference_in_words(comparison["value"], comparison["low"], comparison["high"], 4),
                METRIC_NAMES.get(comparison["metric"]),
            )
            for comparison in compared
        ],
    }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _speed(row: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any] | None:
    latency = row.get("latency_ms")
    if not latency:
        return None
    return {
        "cpu": environment["cpu"],
        "threads": environment["threads"],
        "date": environment["date"][:10],
        "p50": latency["p50"],
        "p95": latency["p95"],
        "p99": latency["p99"],
        "latency_interval": _interval(row.get("latency_interval"), ".2f"),
        "pairs_per_s": row["throughput_pairs_per_s"],
        "throughput_interval": _interval(row.get("throughput_interval"), ".0f"),
        "peak_mb": row["peak_memory_mb"],
    }


def _interval(estimate: Mapping[str, float] | None, form: str) -> str:
    return "" if estimate is None else f" (95 %: {estimate['low']:{form}}–{estimate['high']:{form}})"


def _parity(exports: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the results of the exports' comparisons with torch, for the template; None without exports."""
    if not exports:
        return None
    keys = ("rank_agreement", "mean_cosine", "min_cosine", "max_difference", "batch_difference")
    scripts = {name: _by_script(found.get("scripts") or {}) for name, found in exports.items()}
    return {
        "lines": [
            (name, ["" if (value := found.get(key)) is None else f"{value:.5f}" for key in keys])
            for name, found in exports.items()
        ],
        "by_script": [(name, phrases) for name, phrases in scripts.items() if len(phrases) > 1],
        "arithmetic": [
            {"name": name, **found["arithmetic"], "apart": _apart(found["arithmetic"])}
            for name, found in exports.items()
            if found.get("arithmetic") is not None
        ],
    }


def _by_script(scripts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return how close an export is to torch on the texts of each script, with the number of texts."""
    return [
        f"{script.title()} {near} ({numbers['n']})"
        for script, numbers in scripts.items()
        if (near := _closeness(numbers))
    ]


def _closeness(numbers: Mapping[str, Any]) -> str:
    if "mean_cosine" in numbers:
        return f"cosine {numbers['mean_cosine']:.4f}, least {numbers['min_cosine']:.4f}"
    agreement = numbers.get("rank_agreement")
    return "" if agreement is None else f"rank agreement {agreement:.4f}"


def _apart(arithmetic: Mapping[str, Any]) -> str:
    """Return how far the results of an int8 export differ between two kinds of CPU."""
    if arithmetic["mean_cosine"] is not None:
        return f"cosine between them {arithmetic['mean_cosine']:.5f}, least {arithmetic['min_cosine']:.5f}"
    return f"logits differ by {arithmetic['difference']:.2g} standard deviations at most"


def use_of(row: Mapping[str, Any], artefact: Artefact) -> dict[str, Any]:
    """Return the values for `model_card_use.md`: how to load a folder, and the quality of its calibration."""
    return {
        "kind": artefact.kind,
        "backend": _ENDING.get(row["runtime"], ""),
        "calibration": _calibration(row),
        "decision": _decision(row),
        "side": artefact.details.get(ASYMMETRIC),
    }


def _calibration(row: Mapping[str, Any]) -> dict[str, Any] | None:
    calibration = row.get("calibration")
    if not calibration:
        return None
    after = calibration["after"]["ece"]
    return {
        "graded": calibration["graded"],
        "kind": calibration["kind"],
        "fitted_to": calibration["fitted_to"],
        "after": after,
        "before": calibration["before"]["ece"],
        "interval": _interval(after, ".3f"),
    }


def _decision(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the threshold with its precision and recall; None without a threshold, or if one of them is undefined."""
    point = (row.get("calibration") or {}).get("operating_point")
    if point is None or point["precision"] is None or point["recall"] is None:
        return None
    return {
        "threshold": point["threshold"],
        "precision": point["precision"]["value"],
        "precision_interval": _interval(point["precision"], ".3f"),
        "recall": point["recall"]["value"],
        "recall_interval": _interval(point["recall"], ".3f"),
    }


def _origin(run: Run, row: Mapping[str, Any], artefact: Artefact, result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "role": row["role"],
        "revision": artefact.revision,
        "stage": artefact.stage,
        "parents": artefact.parents.items(),
        "data": [
            (part, artefact.data[part]) for part in ("train", "validation", "evaluation") if artefact.data.get(part)
        ],
        "source": result["data"]["source"],
        "objectives": _objectives(_taught_by(run, row)),
        "control": _control(artefact.details.get("control")),
        "versions": [f"{name} {version}" for name, version in artefact.versions.items()],
    }


def _control(control: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return how a control learned the labels, in words."""
    if control is None:
        return None
    return {
        "how": label_loss_in_words(control["loss"], control.get("learning_rate")),
        "steps": control["steps"],
        "trials": values_in_words(control["trials"]) or "none",
        "in_full": values_in_words(control.get("in_full", {})),
    }


def _taught_by(run: Run, row: Mapping[str, Any]) -> Sequence[Run]:
    """Return the training stages of a row's model; () if it is not a student."""
    if row["role"] == "stage":
        return [stage for stage in run.stages if row["name"] == f"after {stage.name}"]
    return run.stages if row["role"] in ("student", "export") else ()


def _objectives(stages: Sequence[Run]) -> list[tuple[str, str]]:
    """Return the objectives of a student, stage by stage: name and settings."""
    return [
        (f"`{name}`{'' if stage.name is None else f' of stage {stage.name}'}", _settings(term))
        for stage in stages
        for name, term in stage.recipe.objectives.model_dump(mode="json").items()
        if isinstance(term, dict)
    ]


def _settings(term: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in term.items() if value is not None)


def _limits(run: Run, result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "notes": result["notes"],
        "license": run.recipe.card.license,
        "origins": [*_hub_parents(run), str(result["data"]["source"])],
    }


def push(folder: Path, repository: str, *, private: bool = True, dry_run: bool = False) -> str:
    """Upload a model folder to the Hugging Face hub and return its address.

    Texts that differ most, which cards of earlier versions name, are left out of what is sent, and a warning says so.

    :param dry_run: contact no server and send nothing; return what would be sent, one line for each file
    :raises BadInput: if the folder is incomplete, has changed since it was made or has no README.md, or the name is not
        valid
    :raises JobFailed: if the hub refuses
    """
    check_model_folder(folder)
    check_unchanged(folder)
    if not (folder / "README.md").is_file():
        raise BadInput(f"{folder} has no README.md; run the stage benchmark of its recipe first, or write one")
    cards = _cards_without_texts(folder)
    if dry_run:
        return _would_push(folder, repository, private, cards)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        found = api.upload_folder(folder_path=str(folder), repo_id=repository, ignore_patterns=[*_HIDDEN, *cards])
        for name, content in cards.items():
            api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=repository)
    except HFValidationError as error:
        raise BadInput(f"{repository}: {' '.join(str(error).split())}") from None
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise JobFailed(f"the hub did not take {folder}: {' '.join(str(error).split())[:300]}") from None
    return str(getattr(found, "repo_url", None) or f"https://huggingface.co/{repository}")


def _cards_without_texts(folder: Path) -> dict[str, bytes]:
    """Return the content of each card in a folder that names texts of held-back pairs, without them, by the file's path."""
    cards = {}
    for path in sorted(folder.rglob(CARD)):
        card = read_json(path)
        parity = (card.get("details") or {}).get("parity") or {}
        if texts := parity.pop("worst", ()) if isinstance(parity, dict) else ():
            name = path.relative_to(folder).as_posix()
            cards[name] = (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode()
            log.warning(
                "%s names %s of your held-back pairs (details.parity.worst), as earlier versions wrote it; they are "
                "left out of what is sent, the file stays as it is",
                path,
                counted(len(texts), "text"),
            )
    return cards


def _would_push(folder: Path, repository: str, private: bool, cards: Mapping[str, bytes]) -> str:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import filter_repo_objects, validate_repo_id  # type: ignore[attr-defined]  # it is in no __all__

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise BadInput(f"{repository}: {' '.join(str(error).split())}") from None
    found = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    paths = list(filter_repo_objects(found, ignore_patterns=_HIDDEN))
    sizes = [len(cards[path]) if path in cards else (folder / path).stat().st_size for path in paths]
    lines = [f"{size:>13,} bytes  {path}" for size, path in zip(sizes, paths, strict=True)]
    what = (
        f"{counted(len(paths), 'file')}, {sum(sizes):,} bytes, to {repository} ({'private' if private else 'public'})"
    )
    return "\n".join([*lines, f"would send {what}; nothing was sent"])
