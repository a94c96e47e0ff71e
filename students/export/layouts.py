"""Write one export as a folder that another tool reads.

    write_layout(Path("exports/onnx-int8"), Path("for-fastembed"), tool="fastembed")

`students.export.stage` writes the layout of sentence-transformers. Other tools need other files, and do not apply the
pooling, Dense layers or lower-casing of sentence-transformers: here these are in the graph and in `tokenizer.json`.
Before a folder is put in place, its graph and its `tokenizer.json` are run by ONNX Runtime and tokenizers alone, and
must give the export's results.

    fastembed         model.onnx with the result alone (it takes the first output), special_tokens_map.json, the length
                      and the padding token in tokenizer_config.json; `add_custom_model(…, pooling=PoolingType.DISABLED)`
    tei               text-embeddings-inference: model.onnx, the pooling in the words of sentence-transformers 2, and for a
                      cross-encoder the configuration of a classifier with one label, which makes it a reranker there
    transformers.js   onnx/model.onnx or onnx/model_quantized.onnx, named in config.json; a tokenizer class that it
                      knows, because with an unknown one pairs get no token types. It truncates a long text at the end,
                      including the closing token, so such a text has other numbers there
    triton            config.pbtxt and 1/model.onnx; the folder's name is the model's
    optimum           the graph beside config.json and the tokenizer, OpenVINO or ONNX
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distill import runtime
from distill.errors import BadInput, GateFailed
from distill.files.artefact import CALIBRATION, check_model_folder, check_unchanged, read_card, write_json
from distill.files.outputs import check_output_folder, output_folder
from distill.files.trust import load_auto, read_json
from distill.graphs.calibrated import calibrate_onnx, calibrate_openvino, calibrated_logits
from distill.graphs.onnx import keep_outputs, write_tokenizer
from distill.metrics.calibration import Calibration
from distill.models.compatibility import pooling_flags, portable_tokenizer
from distill.models.files import GRAPHS
from distill.models.stored_calibration import read_calibration

__all__ = ["TOOLS", "Tool", "how_to_open", "write_layout"]

Tool = Literal["fastembed", "tei", "transformers.js", "triton", "optimum"]
_SAMPLES = (
    "백엔드 개발자를 채용합니다. Python과 Django 경험이 필요합니다.",
    "Backend engineer with five years of PYTHON, Django and PostgreSQL.",
    "a",
    "Kubernetes와 AWS로 서비스를 운영한 DevOps 엔지니어 " * 100,  # longer than the model's limit
)
_TOLERANCE = 1e-4  # of the greatest result: other tools may sum in another order
_DYNAMIC_TOLERANCE = 0.1  # the runtime pads and another tool may not, which changes dynamic ranges
_TOKENIZER_CLASSES: Mapping[str, str] = {
    "bert": "BertTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
_TRITON_MAX_BATCH = 64


def write_layout(source: Path, target: Path, *, tool: Tool, calibrated: bool = False) -> None:
    """Write the export `source` as `tool` reads it.

    :param target: a folder that does not exist, or is empty
    :param calibrated: add the export's calibration to a cross-encoder's logits: their sigmoid is then the probability
    :raises BadInput: for an unknown tool, a target that is not empty, an export in a format that the tool does not
        read, an export whose files have changed, and `calibrated` for an export without a calibration of logits
    :raises GateFailed: if the written files do not give the export's results; nothing is put in place then
    """
    if tool not in TOOLS:
        raise BadInput(f"layout {tool!r} is not known; accepted: {', '.join(TOOLS)}")
    source_format = next((name for name in ("onnx", "openvino") if _has_graph(source, name)), None)
    if source_format is None:
        check_model_folder(source)
    if source_format is None or (source_format == "openvino" and tool != "optimum"):
        formats = "an ONNX or OpenVINO export" if tool == "optimum" else "an ONNX export"
        raise BadInput(
            f"{source} is not what {tool} can be made from: {formats} is needed; add onnx to export.formats and run the export"
        )
    check_output_folder(target, inputs=[source])
    check_unchanged(source)
    scorer = runtime.load(source, runtime="onnx" if source_format == "onnx" else "openvino")
    export = _Export(source, scorer)
    calibration = _calibration_of(export) if calibrated else None
    with output_folder(target) as folder:
        graph = TOOLS[tool](export, folder, target.name)
        if calibration is not None and graph.suffix == ".onnx":
            calibrate_onnx(graph, calibration)
        elif calibration is not None:
            calibrate_openvino(_openvino_graph(source), graph, calibration)
        if graph.suffix == ".onnx":
            _check(export, calibration, graph, folder, tool)


def _calibration_of(export: "_Export") -> Calibration:
    if not export.is_cross_encoder:
        raise BadInput(
            f"{export.source} is a bi-encoder: its graph reads one text, and a calibration is of a pair's score; score(…, calibrated=True) applies it"
        )
    stored = read_calibration(export.source, "cross_encoder")
    if stored is None:
        raise BadInput(
            f"{export.source} has no {CALIBRATION}; set student.calibration and run `distill export` with the recipe, which fits one"
        )
    return stored.calibration


def _openvino_graph(source: Path) -> Path:
    return next(source / name for name in GRAPHS["openvino"] if (source / name).is_file())


def _has_graph(source: Path, name: str) -> bool:
    return any((source / graph).is_file() for graph in GRAPHS["onnx" if name == "onnx" else "openvino"])


class _Export:
    """The facts on an export that the writers need."""

    def __init__(self, source: Path, scorer: runtime.Scorer) -> None:
        self.source, self.scorer = source, scorer
        self.is_cross_encoder = scorer.kind == "cross_encoder"
        self.config: dict[str, Any] = _read(source / "config.json")
        self.tokenizer_config: dict[str, Any] = _read(source / "tokenizer_config.json")

    @property
    def result(self) -> str:
        """The name of the graph's result."""
        return "logits" if self.is_cross_encoder else "sentence_embedding"

    @property
    def graph(self) -> Path:
        """The ONNX graph."""
        names = GRAPHS["onnx"]
        return next(self.source / name for name in names if (self.source / name).is_file())

    def loaded_config(self) -> Any:
        """The configuration as read by transformers, with the names that all model families share."""
        from transformers import AutoConfig

        return load_auto(AutoConfig, self.source, local_files_only=True)

    def classifier_config(self) -> dict[str, Any]:
        """The configuration; for a cross-encoder that of a classifier with one label, whatever its head is."""
        if not self.is_cross_encoder:
            return self.config
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as classifiers,
        )

        name = classifiers.get(self.config["model_type"], "BertForSequenceClassification")
        return {**self.config, "architectures": [name], "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}

    def write_tokenizer(self, folder: Path, **changes: Any) -> dict[str, str]:
        """Write tokenizer.json and tokenizer_config.json, with changes to the latter; return the named special tokens."""
        tokenizer = write_tokenizer(self.source, folder, max_length=self.scorer.max_length)
        specials = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        named_tokens = {name: token for name, token in specials.items() if name.endswith("_token")}
        config = {
            **portable_tokenizer(self.tokenizer_config),
            **named_tokens,
            "model_max_length": self.scorer.max_length,
            **changes,
        }
        config["tokenizer_class"] = config.get("tokenizer_class") or "PreTrainedTokenizerFast"
        write_json(folder / "tokenizer_config.json", config)
        return named_tokens


def _fastembed(export: _Export, folder: Path, name: str) -> Path:
    graph = folder / "model.onnx"
    keep_outputs(export.graph, graph, [export.result])
    write_json(folder / "config.json", export.config)
    specials = export.write_tokenizer(folder)
    if "pad_token" not in specials:
        raise BadInput(f"{export.source} has no padding token, which fastembed needs")
    write_json(folder / "special_tokens_map.json", specials)  # transformers 5 no longer writes it
    return graph


def _text_embeddings_inference(export: _Export, folder: Path, name: str) -> Path:
    graph = folder / "model.onnx"
    keep_outputs(export.graph, graph, [export.result])
    config, loaded_config = export.classifier_config(), export.loaded_config()
    # names that the tool needs and that some families, such as DistilBERT, do not use
    aliases = ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "pad_token_id")
    present = {
        alias: getattr(loaded_config, alias) for alias in aliases if getattr(loaded_config, alias, None) is not None
    }
    write_json(folder / "config.json", {**present, **config})
    export.write_tokenizer(folder)
    settings = {"max_seq_length": export.scorer.max_length, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", settings)
    if not export.is_cross_encoder:
        # the tool requires this setting, but uses sentence_embedding if the graph has it
        (folder / "1_Pooling").mkdir()
        write_json(folder / "1_Pooling" / "config.json", pooling_flags(export.scorer.embedding_width, {"mean"}))
        prompts = export.source / "config_sentence_transformers.json"
        if prompts.is_file():
            shutil.copyfile(prompts, folder / prompts.name)
    return graph


def _transformers_js(export: _Export, folder: Path, name: str) -> Path:
    quantized = export.scorer.precision == "int8"
    graph = folder / "onnx" / ("model_quantized.onnx" if quantized else "model.onnx")
    graph.parent.mkdir()
    keep_outputs(export.graph, graph, None)  # its feature-extraction pipeline pools last_hidden_state itself
    has_data_file = graph.with_name(f"{graph.name}_data").is_file()
    loader = {"dtype": "q8" if quantized else "fp32", **({"use_external_data_format": True} if has_data_file else {})}
    write_json(folder / "config.json", {**export.classifier_config(), "transformers.js_config": loader})
    tokenizer_class = _TOKENIZER_CLASSES.get(export.config["model_type"])
    export.write_tokenizer(folder, **({} if tokenizer_class is None else {"tokenizer_class": tokenizer_class}))
    return graph


def _triton(export: _Export, folder: Path, name: str) -> Path:
    graph = folder / "1" / "model.onnx"
    graph.parent.mkdir()
    keep_outputs(export.graph, graph, [export.result])
    export.write_tokenizer(folder)
    width = export.scorer.embedding_width
    inputs = ",\n".join(_triton_tensor(name, "TYPE_INT64", -1) for name in _input_names(graph))
    config = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {_TRITON_MAX_BATCH}",
        f"input [\n{inputs}\n]",
        f"output [\n{_triton_tensor(export.result, 'TYPE_FP32', width)}\n]",
        "dynamic_batching {}",
    ]
    (folder / "config.pbtxt").write_text("\n".join(config) + "\n", encoding="utf-8")
    return graph


def _triton_tensor(name: str, kind: str, size: int) -> str:
    return f'  {{\n    name: "{name}"\n    data_type: {kind}\n    dims: [ {size} ]\n  }}'


def _optimum(export: _Export, folder: Path, name: str) -> Path:
    write_json(folder / "config.json", export.classifier_config())
    export.write_tokenizer(folder)
    if export.scorer.runtime == "onnx":
        keep_outputs(export.graph, folder / "model.onnx", None)
        return folder / "model.onnx"
    graph = _openvino_graph(export.source)
    for suffix in (".xml", ".bin"):
        shutil.copyfile(graph.with_suffix(suffix), folder / f"openvino_model{suffix}")
    return folder / "openvino_model.xml"


TOOLS: Mapping[str, Callable[[_Export, Path, str], Path]] = {
    "fastembed": _fastembed,
    "tei": _text_embeddings_inference,
    "transformers.js": _transformers_js,
    "triton": _triton,
    "optimum": _optimum,
}
_OPENED_BY: Mapping[str, str] = {
    "fastembed": "TextEmbedding (a cross-encoder: TextCrossEncoder): add_custom_model(…, pooling=PoolingType.DISABLED), then specific_model_path={target}",
    "tei": "text-embeddings-router --model-id {target}",
    "transformers.js": "env.localModelPath = {parent}, then pipeline('feature-extraction', '{name}')",
    "triton": "tritonserver --model-repository {parent}",
    "optimum": "from_pretrained({target}) of the ORTModel or OVModel class for the task",
}


def how_to_open(tool: Tool, target: Path) -> str:
    """Return the command or call by which a tool opens its folder."""
    place = target.resolve()
    return _OPENED_BY[tool].format(target=place, parent=place.parent, name=place.name)


# ---------------------------------------------------------------------------------------------------------------------
# Comparison with the export
# ---------------------------------------------------------------------------------------------------------------------


def _check(export: _Export, calibration: Calibration | None, graph: Path, folder: Path, tool: Tool) -> None:
    """Compare the written graph and tokenizer with the export, one text or pair at a time."""
    scorer, source = export.scorer, export.source
    prompts = _read(source / "config_sentence_transformers.json")
    prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name") or "", "")
    if scorer.kind == "bi_encoder":
        inputs: list[Any] = [prompt + text for text in _SAMPLES]
        expected, result = scorer.encode(_SAMPLES), "sentence_embedding"
    else:
        inputs = [(left, right) for left in _SAMPLES for right in reversed(_SAMPLES)]
        expected = scorer.score([left for left, _ in inputs], [right for _, right in inputs])[:, None]
        result = "logits"
    if calibration is not None:
        expected = calibrated_logits(calibration, expected)
    card = read_card(source)
    is_dynamic = card is not None and card.details.get("precision") == "int8_dynamic"
    limit = (_DYNAMIC_TOLERANCE if is_dynamic else _TOLERANCE) * max(1.0, float(np.abs(expected).max()))
    gap = float(np.abs(_run(graph, folder / "tokenizer.json", inputs, result) - expected).max())
    if not gap <= limit:
        raise GateFailed(f"the {tool} layout of {source} differs from it by {gap:.2g}, at most {limit:.2g} is accepted")


def _run(graph: Path, tokenizer_file: Path, texts: list[Any], result: str) -> np.ndarray:
    """Run texts or pairs with only ONNX Runtime and tokenizers."""
    import onnxruntime
    from tokenizers import Tokenizer

    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    names, rows = [port.name for port in session.get_inputs()], []
    for text in texts:
        encoding = tokenizer.encode(*text) if isinstance(text, tuple) else tokenizer.encode(text)
        features = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        rows.append(session.run([result], {name: np.array([features[name]], dtype=np.int64) for name in names})[0])
    return np.concatenate(rows)


def _input_names(graph: Path) -> list[str]:
    import onnx

    return [value.name for value in onnx.load(str(graph), load_external_data=False).graph.input]


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = read_json(path) if path.is_file() else {}
    return values
