"""The model card: a `README.md` in each folder of a run that says what the model is, lost and won, and how to load it.

Written when the report is, from the report's own numbers and the folders' `artefact.json`; the metadata on top are what
the Hugging Face hub reads. A card describes the model and is no part of it: it does not change the revision.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.errors import BadInput, JobFailed
from distill.files.artefact import ASYMMETRIC, Artefact, check_model_folder, read_card
from distill.files.outputs import inert
from distill.metrics.names import METRIC_NAMES
from distill.metrics.standing import floor_of
from distill.recipe.black_box import BLACK_BOXES
from distill.report.words import speed_share, worth_in_parts
from distill.run import Run
from distill.wording import counted, difference_in_words

__all__ = ["push", "write_model_cards"]

_ENDING = {"openvino": ', backend="openvino"', "onnx": ', backend="onnx"', "torch": ""}


def write_model_cards(run: Run, result: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
    """Write the `README.md` of every model that the report measured.

    :param result: what `report/benchmark.json` holds
    :param folders: where the models of its rows lie, by name
    """
    exports = _exports(run)
    for row in result["rows"]:
        folder = folders.get(row["name"])
        artefact = None if folder is None else read_card(folder)
        if folder is not None and artefact is not None:
            text = _text(run, row, result, artefact, exports)
            (folder / "README.md").write_text(text, encoding="utf-8")


def _exports(run: Run) -> dict[str, Mapping[str, Any]]:
    """Return what each export's check found, by the folder's name."""
    found = {path.name: read_card(path) for path in sorted((run.folder / "exports").glob("*"))}
    return {
        name: card.details["parity"] for name, card in found.items() if card is not None and "parity" in card.details
    }


def _own_parity(row: Mapping[str, Any], artefact: Artefact) -> dict[str, Mapping[str, Any]]:
    """Return what the check of a teacher's export found; the student's exports are shown together."""
    found = artefact.details.get("parity") if row["role"] == "teacher_export" else None
    return {} if found is None else {row["name"]: found}


def _text(
    run: Run, row: Mapping[str, Any], result: Mapping[str, Any], artefact: Artefact, exports: Mapping[str, Any]
) -> str:
    if row["kind"] in BLACK_BOXES:
        return _text_of_black_box(run, row, result, artefact)
    parts = [
        f"# {run.recipe.name}: {row['name']}\n\n{_what(row, result)}",
        _quality(row, result),
        _speed(row, result["environment"]),
        _parity(exports) if row["role"] in ("student", "export") else _parity(_own_parity(row, artefact)),
        _loading(row, artefact),
        _origin(run, row, artefact, result),
        _limits(run, row, result),
    ]
    body = inert("\n\n".join(part for part in parts if part))
    return f"{_metadata(run, row, result, artefact)}\n\n{body}\n"


def _text_of_black_box(run: Run, row: Mapping[str, Any], result: Mapping[str, Any], artefact: Artefact) -> str:
    """Return the card of a teacher that is no model: nothing here can be loaded."""
    box = run.recipe.black_boxes.get(row["name"])
    said = "no model" if box is None else f"no model: {box.in_words}"
    parts = [
        f"# {run.recipe.name}: {row['name']}\n\nThis teacher is {said}. Parameters, size and latency are unknown. What it said of "
        f"the training texts is in `signals/{row['name']}` of the run.",
        _quality(row, result),
        _origin(run, row, artefact, result),
        _limits(run, row, result),
    ]
    return inert("\n\n".join(part for part in parts if part)) + "\n"


def _metadata(run: Run, row: Mapping[str, Any], result: Mapping[str, Any], artefact: Artefact) -> str:
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
    """Return the backbones that have a name on the hub."""
    backbones = [teacher.backbone for teacher in run.recipe.models.values()]
    if run.recipe.student is not None:
        backbones.append(run.recipe.student.backbone)
    names = [backbone for backbone in backbones if isinstance(backbone, str)]
    return list(
        dict.fromkeys(name for name in names if not name.startswith(("/", ".", "~")) and not Path(name).exists())
    )


def _what(row: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    kind = (
        "cross-encoder: one score for a pair of texts"
        if row["kind"] == "cross_encoder"
        else "bi-encoder: vectors whose cosine is the match of two texts"
    )
    said = f"A {kind}. {row['parameters'] / 1e6:.1f} M parameters, {row['size_mb']:.1f} MB, {row['runtime']} {row['precision']}."
    floor = floor_of(result["rows"], result["primary_metric"])
    if row.get("under_floor") and floor is not None:
        said += f" **It is under the floor: counting common terms (`{floor['name']}`) matches these pairs better.**"
    if row.get("problem"):
        said += f" **{row['problem'][0].upper()}{row['problem'][1:]}.**"
    share = (row.get("retention") or {}).get(result["primary_metric"])
    teacher = next((other["name"] for other in result["rows"] if other["role"] == "teacher"), None)
    if share is None or teacher is None or row["role"] == "teacher":
        return said
    split = speed_share(row)
    faster = (
        ""
        if row.get("speedup") is None
        else f" at {row['speedup']:.1f} times its pairs a second{f' ({split})' if split else ''}"
    )
    of = f"`{teacher}` in torch" if row["role"] == "teacher_export" else f"its teacher, `{teacher}`,"
    return f"{said} It keeps {100 * share:.1f} % of the {METRIC_NAMES.get(result['primary_metric'])} of {of}{faster}."


def _quality(row: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    lines = [
        f"## Quality\n\n{result['data']['n_pairs']} evaluation pairs of {result['data']['n_queries']} queries; 95 % bootstrap intervals.\n",
        "| metric | value | 95 % | of the teacher | of the best teacher | of what there was to gain |",
        "|---|---:|---|---:|---:|---|",
    ]
    for name, estimate in row["metrics"].items():
        share = (row.get("retention") or {}).get(name)
        best = (row.get("retention_best") or {}).get(name)
        kept, of_best = ("" if value is None else f"{100 * value:.1f} %" for value in (share, best))
        lines.append(
            f"| {METRIC_NAMES.get(name, name)} | {estimate['value']:.4f} | {estimate['low']:.4f}–{estimate['high']:.4f} | {kept} | {of_best} "
            f"| {', '.join(worth_in_parts(row, name))} |"
        )
    compared = [
        one
        for one in result["comparisons"]
        if row["name"] in (one["name"].split(" − ")[0], one["name"].split(" − ")[-1])
    ]
    lines += [""] * bool(compared) + [
        f"- {one['name']}: {difference_in_words(one['value'], one['low'], one['high'], 4)} {METRIC_NAMES.get(one['metric'])}"
        for one in compared
    ]
    return "\n".join(lines)


def _speed(row: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    latency = row.get("latency_ms")
    if not latency:
        return ""
    machine = f"{environment['cpu']}, {environment['threads']} threads, {environment['date'][:10]}"
    one, many = (
        _interval(row.get(f"{kind}_interval"), form) for kind, form in (("latency", ".2f"), ("throughput", ".0f"))
    )
    return (
        f"## Speed\n\n{machine}; tokenisation included. One pair: p50 {latency['p50']:.2f} ms{one}, p95 {latency['p95']:.2f}, p99 {latency['p99']:.2f}; "
        f"in batches {row['throughput_pairs_per_s']:.0f} pairs/s{many}; {row['peak_memory_mb']:.0f} MB of memory at most."
    )


def _interval(given: Mapping[str, float] | None, form: str) -> str:
    return "" if given is None else f" (95 %: {given['low']:{form}}–{given['high']:{form}})"


def _parity(exports: Mapping[str, Mapping[str, Any]]) -> str:
    if not exports:
        return ""
    lines = [
        "## Against torch fp32\n",
        "| export | rank agreement | mean cosine | least cosine | greatest difference | alone or in a batch |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, parity in exports.items():
        values = [
            parity.get(key)
            for key in ("rank_agreement", "mean_cosine", "min_cosine", "max_difference", "batch_difference")
        ]
        lines.append(f"| {name} | {' | '.join('' if value is None else f'{value:.5f}' for value in values)} |")
    lines.append("\nDifferences are of pair scores in [0, 1].")
    return "\n".join([*lines, *_by_script(exports), *_arithmetic(exports)])


def _by_script(exports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each export that was judged on texts of several scripts."""
    lines = []
    for name, parity in exports.items():
        scripts = parity.get("scripts") or {}
        told = [
            f"{script.title()} {_closeness(numbers)} ({numbers['n']})"
            for script, numbers in scripts.items()
            if _closeness(numbers)
        ]
        if len(told) > 1:
            lines.append(f"\n{name} by script, with the number of texts: {'; '.join(told)}.")
    return lines


def _closeness(numbers: Mapping[str, Any]) -> str:
    if "mean_cosine" in numbers:
        return f"cosine {numbers['mean_cosine']:.4f}, least {numbers['min_cosine']:.4f}"
    agreement = numbers.get("rank_agreement")
    return "" if agreement is None else f"rank agreement {agreement:.4f}"


def _arithmetic(exports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say of each int8 export whether other CPUs come to the same, and how that was judged."""
    lines = []
    for name, parity in exports.items():
        found = parity.get("arithmetic")
        if found is None:
            continue
        if found["mean_cosine"] is not None:
            apart = f"cosine between them {found['mean_cosine']:.5f}, least {found['min_cosine']:.5f}"
        else:
            apart = f"logits differ by {found['difference']:.2g} standard deviations at most"
        safe = (
            "weights in 7 bits, safe from overflow" if found["overflow_safe"] else "weights in 8 bits, which overflow"
        )
        lines.append(
            f"\n{name} was exported on a CPU of class {found['cpu_class']}: {safe} on CPUs without VNNI. "
            f"Judged: {found['judged']}; {apart}."
        )
    return lines


def _loading(row: Mapping[str, Any], artefact: Artefact) -> str:
    backend = _ENDING.get(row["runtime"], "")
    if artefact.kind == "cross_encoder":
        use = f'from sentence_transformers import CrossEncoder\n\nmodel = CrossEncoder("path/to/this/folder"{backend})\nscores = model.predict([("a query", "a document")])'
        own = 'load("path/to/this/folder").score(["a query"], ["a document"])'
    else:
        use = f'from sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer("path/to/this/folder"{backend})\nvectors = model.encode(["a text", "another"])  # unit length'
        own = 'load("path/to/this/folder").encode(["a text", "another"])'
    loading = f"## Use\n\n```python\n{use}\n```\n\nor, faster on a CPU and with the same numbers: `from distill.runtime import load; {own}`."
    loading += _probabilities(row)
    stated = artefact.details.get(ASYMMETRIC)
    if stated is None:
        return loading
    return f"{loading}\n\nIt reads the {stated['side']} side of pairs. Vectors of the other side are those of `{stated['teacher']}` at revision `{stated['revision']}`, and of no other model."


def _probabilities(row: Mapping[str, Any]) -> str:
    """Say what the folder's calibration is worth; "" where it carries none."""
    told = row.get("calibration")
    if not told:
        return ""
    ece, before = told["after"]["ece"], told["before"]["ece"]
    meaning = "expected grades" if told["graded"] else "probabilities of a match"
    text = (
        f"\n\n`score(…, calibrated=True)` gives {meaning} ({told['kind']}, fitted to {told['fitted_to']} validation pairs): expected "
        f"calibration error {ece['value']:.3f}{_interval(ece, '.3f')} on {ece['n']} other pairs, of the unit score {before['value']:.3f}."
    )
    point = told.get("operating_point")
    if point is None or point["precision"] is None or point["recall"] is None:
        return text
    precision, recall = point["precision"], point["recall"]
    return (
        f"{text} `decide(scores)` calls {point['threshold']:.4g} and more a match: precision {precision['value']:.3f}"
        f"{_interval(precision, '.3f')}, recall {recall['value']:.3f}{_interval(recall, '.3f')}."
    )


def _origin(run: Run, row: Mapping[str, Any], artefact: Artefact, result: Mapping[str, Any]) -> str:
    lines = ["## Where it comes from\n", f"- revision `{artefact.revision}`, stage {artefact.stage}"]
    lines += [f"- parent `{name}`, revision `{revision}`" for name, revision in artefact.parents.items()]
    for part in ("train", "validation", "evaluation"):
        described = artefact.data.get(part)
        if described:
            lines.append(f"- {part} data: {described['n_pairs']} pairs, fingerprint `{described['fingerprint']}`")
    lines.append(f"- source of the data: `{result['data']['source']}`")
    if row["role"] in ("student", "export"):
        lines += _objectives(run.stages)
    if row["role"] == "stage":
        lines += _objectives([stage for stage in run.stages if row["name"] == f"after {stage.name}"])
    if row["role"] == "control":
        lines.append("- trained on the labels alone: the same student without its teacher")
        said = artefact.details.get("control") or {}
        if said:
            lines.append(
                f"- label loss `{said['loss']}`, {said['steps']} steps; trials on validation pairs: {said['trials'] or 'none'}"
            )
    if row["role"] == "untrained":
        lines.append("- the built student before its first step")
    lines.append("- versions: " + ", ".join(f"{name} {version}" for name, version in artefact.versions.items()))
    return "\n".join(lines)


def _objectives(stages: Sequence[Run]) -> list[str]:
    """Say what the student learned by, stage by stage."""
    return [
        f"- objective `{name}`{'' if stage.name is None else f' of stage {stage.name}'}: {_settings(term)}"
        for stage in stages
        for name, term in stage.recipe.objectives.model_dump(mode="json").items()
        if isinstance(term, dict)
    ]


def _settings(term: Any) -> str:
    if not isinstance(term, Mapping):
        return str(term)
    return ", ".join(f"{key} {value}" for key, value in term.items() if value is not None)


def _limits(run: Run, row: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    card, notes = run.recipe.card, [str(note) for note in result["notes"]]
    origins: Sequence[str] = [*_hub_parents(run), str(result["data"]["source"])]
    lines = [
        "## Limits\n",
        "- Intervals cover these evaluation pairs, not other data and not another training with another seed.",
        "- Scores say how well two texts match in the sense of the training labels; they judge nobody.",
        *(f"- {note}" for note in notes),
        f"- Licence: {card.license}."
        if card.license
        else f"- Licence: not stated by the recipe (`card.license`); the terms of {', '.join(origins)} hold.",
    ]
    return "\n".join(lines)


def push(folder: Path, repository: str, *, private: bool = True, dry_run: bool = False) -> str:
    """Upload a model folder to the Hugging Face hub and return its address.

    :param dry_run: ask nobody and send nothing; return what would be sent, a line for each file
    :raises BadInput: where the folder is not whole or has no card, and for a name that the hub does not know
    :raises JobFailed: where the hub refuses
    """
    check_model_folder(folder)
    if not (folder / "README.md").is_file():
        raise BadInput(f"{folder} has no README.md; run the stage benchmark of its recipe first, or write one")
    if dry_run:
        return _would_push(folder, repository, private)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        found = api.upload_folder(folder_path=str(folder), repo_id=repository, ignore_patterns=[".*"])
    except HFValidationError as error:
        raise BadInput(f"{repository}: {' '.join(str(error).split())}") from None
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise JobFailed(f"the hub did not take {folder}: {' '.join(str(error).split())[:300]}") from None
    return str(getattr(found, "repo_url", None) or f"https://huggingface.co/{repository}")


def _would_push(folder: Path, repository: str, private: bool) -> str:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is in no __all__

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise BadInput(f"{repository}: {' '.join(str(error).split())}") from None
    sent = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    sent = [path for path in sent if not any(part.startswith(".") for part in path.parts)]
    sizes = [(folder / path).stat().st_size for path in sent]
    lines = [f"{size:>13,} bytes  {path}" for size, path in zip(sizes, sent, strict=True)]
    what = f"{counted(len(sent), 'file')}, {sum(sizes):,} bytes, to {repository} ({'private' if private else 'public'})"
    return "\n".join([*lines, f"would send {what}; nothing was sent"])
