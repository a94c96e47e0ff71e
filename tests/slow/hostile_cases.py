"""The hostile inputs that `tests.slow.hostile_inputs` tries: recipes, data, model folders, signal caches, outputs, options."""

import json
import os
import shutil
import socket
from pathlib import Path

from tests.conftest import write_recipe
from tests.slow.commands import GOOD, MORE, pairs, truncated

READ_NEVER = {
    ("layout", "artefact.json"),
    ("layout", "tokenizer.json"),
}
CASES = []  # title, prepare(folder, finished) → argv, outputs that may appear, exit codes


def case(title, prepare, *, outputs=(), codes=(1, 2)):
    CASES.append((title, prepare, outputs, codes))


# --- recipes ----------------------------------------------------------------------------------------------------------


def recipe_text(title, content):
    def prepare(folder, _):
        (folder / "recipe.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        return ["run", folder / "recipe.yaml"]

    case(f"recipe: {title}", prepare)


def override(key, value):
    case(
        f"override: {key}={str(value)[:30]}",
        lambda folder, _: ["train-teacher", write_recipe(folder), f"{key}={value}"],
    )


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefghij", "bcdefghijk", strict=True)
)
LAYERS_BOMB = BOMB + "student: {kind: bi_encoder, backbone: x, layers: *k}\nname: x\ndata: {train: x}\n"
for title, content in {
    "bomb": BOMB,
    "layers as a bomb": LAYERS_BOMB,
    "1,000 brackets": "a: " + "[" * 1000,
    "1,000 lists": "a: " + "[" * 1000 + "]" * 1000,
    "20,000 mappings": "a: " + "{a: " * 20_000 + "1" + "}" * 20_000,
    "dashes": "- " * 3000 + "x",
    "itself": "a: &a [*a]",
    "unknown alias": "a: *b",
    "list": "- a",
    "text": "a",
    "number": "1",
    "empty": "",
    "null": "null",
    "key twice": "name: a\nname: b",
    "tab": "data:\n\ttrain: x",
    "CP949": "name: 이력서".encode("cp949"),
    "UTF-16": "name: x".encode("utf-16"),
    "zeros": b"\0" * 100,
    "random bytes": bytes(range(256)),
    "python": "a: !!python/object/apply:os.system [id]",
    "date": "name: 2026-01-01",
    "binary": "name: !!binary aGk=",
    "set": "? a\n? b",
    "two documents": "a: 1\n---\nb: 2",
    "key of a list": "[1, 2]: x",
    "null key": "null: x",
    "NUL": 'name: "\\0"',
    "surrogate": 'name: "\\ud800"',
    "long integer": "seed: " + "9" * 5000,
    "merge of a text": "a: {<<: x}",
    "teachers a list": "name: x\ndata: {train: x}\nteachers: [1]",
    "data a text": "name: x\ndata: x",
    "all wrong": "name: [1]\ndata: 3\nteachers: x\nstudent: []\ntraining: 1",
    "6 MB": "a: " + "x" * 6_000_000,
}.items():
    recipe_text(title, content)
for key, values in {
    "seed": [-1, 10**23, 1.5, "x", "null", ".nan", "[1]"],
    "training.epochs": ["1e308", "1.0e+308", ".inf", ".nan", 0, -1, "x", "{}"],
    "training.learning_rate": [".inf", ".nan", -1, 0],
    "training.max_steps": [0, -1, 10**30],
    "training.global_batch": [0, 10**12],
    "training.token_budget": [-5, 10**20],
    "name": ["x" * 300, "a/b", "..", "''", "'.x'", "3"],
    "output_dir": ["/proc/x", "/dev/null/x", "x" * 300, '"a\\0b"'],
    "data.train": ["x" * 300, "/dev", "/", "''", "../none.tsv", "3"],
    "data.label_range": ["[1,1]", "[2,1]", "[.nan,1]", "[0,.inf]", "[0]", "x"],
    "data.evaluation_share": [0, 1, 2, -1, ".nan"],
    "data.max_pairs": [0, -1, 10**20],
    "data.candidates": [1, -1, 10**20],
    "data.columns": ["{query: 3}", "{qeury: x}", "[]"],
    "teachers.cross.backbone.layers": [0, -1, 10**9],
    "teachers.cross.backbone.width": [0, 3, 10**9],
    "teachers.cross.backbone.heads": [0, 7, 10**9],
    "teachers.cross.backbone.vocabulary": [1, 10**12],
    "teachers.cross.max_length": [1, 10**9, "x"],
    "teachers.cross.head": ["[0]", "[1000000000000]", "x", "[[1]]"],
    "teachers.cross.backbone": ["/", "/dev/null", "x" * 300, "..", "''", "{teacher: cross}"],
    "student.layers": ["[-1]", "[1,0]", "[[0]]", "{importance: 0}", "{every: 1, last: 1}", "x", "[0.5]"],
    "student.width": ["{hidden: 0}", "{hidden: .nan}", "{}", "{hidden: -3}"],
    "teachers.a/b": ["{}"],
    "teachers": ["[]", "x", "{1: x}"],
    "benchmark.seconds": [".inf", ".nan", -1, 0],
    "benchmark.lengths": ["[0]", "[-1]", "x"],
    "a..b": [1],
    ".": [1],
    "": [1],
}.items():
    for value in values:
        override(key, value)
case("override: 5,000 deep", lambda folder, _: ["train-teacher", write_recipe(folder), ".".join("a" * 5000) + "=1"])
for title, path in {
    "a folder": ".",
    "a device": "/dev/zero",
    "a long name": "x" * 300 + ".yaml",
    "NUL": "a\0b.yaml",
}.items():
    case(f"recipe path: {title}", lambda folder, _, path=path: ["run", folder / path])
case("recipe path: a pipe", lambda folder, _: os.mkfifo(folder / "pipe") or ["run", folder / "pipe"])

# --- command lines ----------------------------------------------------------------------------------------------------

for options in (
    ["--label-range", "1,1"],
    ["--label-range", "nan,1"],
    ["--label-range", "0,inf"],
    ["--label-range", "x"],
    ["--label-range", "1"],
    ["--seconds", "nan"],
    ["--seconds", "-1"],
    ["--seconds", "inf"],
    ["--seconds", "1e300"],
    ["--threads", "0"],
    ["--threads", "x"],
    ["--threads", "1e9"],
    ["--batches", "0"],
    ["--batches", "-1"],
    ["--batches", "x"],
    ["--loads", "nan"],
    ["--loads", "5"],
    ["--shapes", "-1"],
    ["--max-slowdown", "nan", "--against", "x"],
    ["--against", "none.json"],
    ["--max-slowdown", "1.1"],
    ["--query-column", "x" * 300],
):
    case(
        f"benchmark {' '.join(options)[:40]}",
        lambda folder, finished, options=options: [
            "benchmark",
            finished.teacher("bi"),
            "--pairs",
            pairs(folder),
            "-o",
            folder / "report",
            *options,
        ],
    )
for title, content in {
    "empty": "",
    "list": "[]",
    "no rows": '{"rows": []}',
    "texts": '{"rows": [{"name": "bi", "per_run": "x", "metrics": {}}], "primary_metric": "x"}',
    "of others": json.dumps(
        {
            "primary_metric": "m",
            "rows": [{"name": "other", "metrics": {}, "per_run": {"latency_ms": [1], "throughput_pairs_per_s": [1]}}],
        }
    ),
}.items():

    def against(folder, finished, content=content):
        (folder / "last.json").write_text(content)
        return [
            "benchmark",
            finished.teacher("bi"),
            "--pairs",
            pairs(folder),
            "-o",
            folder / "report",
            "--against",
            folder / "last.json",
        ]

    case(f"--against: {title}", against)
for options in (
    ["--threads", "-1"],
    ["--max-length", "0"],
    ["--max-length", "99999999999999999999"],
    ["--runtime", "../x"],
    ["--precision", "int8"],
    ["--query-column", ""],
    ["--other-side", "/"],
):
    case(
        f"score {' '.join(options)}",
        lambda folder, finished, options=options: [
            "score",
            finished.teacher("cross"),
            pairs(folder),
            "-o",
            folder / "out.tsv",
            *options,
        ],
    )
for options in (["--truncate", "0"], ["--truncate", "99999"], ["--prompt", "x"], ["--column", "none"]):
    case(
        f"embed {' '.join(options)}",
        lambda folder, finished, options=options: [
            "embed",
            finished.teacher("bi"),
            pairs(folder),
            "-o",
            folder / "out.npy",
            *(options if "--column" in options else ["--column", "query", *options]),
        ],
    )
for options in (
    ["--coverage", "nan"],
    ["--coverage", "2"],
    ["--size", "0"],
    ["--coverage", "0.5", "--size", "100"],
    ["--texts", "none.txt"],
    ["--texts", "/"],
):
    case(
        f"trim {' '.join(options)}",
        lambda folder, finished, options=options: [
            "trim",
            finished.teacher("bi"),
            folder / "new",
            "--texts",
            f"{pairs(folder)}:query",
            *options,
        ],
    )
for options in (
    ["--budget-p95-ms", "nan"],
    ["--budget-mb", "-1"],
    ["--budget-mb", "inf"],
    ["--length", "1"],
    ["--vocabulary", "-1"],
    ["--family", "x"],
    [],
):
    case(f"plan {' '.join(options)}", lambda folder, _, options=options: ["plan", "-o", folder / "plan", *options])
for options in (
    ["--pairs", "1"],
    ["--pairs", "10", "--budget", "nan"],
    ["--pairs", "10", "--base-url", "file:///etc/passwd"],
    ["--pairs", "10", "--base-url", "http://u:p@x/v1"],
    ["--pairs", "10", "--seed", "-1"],
    ["--pairs", "10", "--timeout", "nan"],
    ["--pairs", "10", "--key-variable", "a b"],
):
    case(f"synthesize {' '.join(options)}", lambda folder, _, options=options: ["synthesize", folder / "new", *options])
for options in (["--seconds", "nan"], ["--threads", "0"], ["--runtime", "x"], []):
    case(
        f"tune {' '.join(options)}",
        lambda folder, finished, options=options: ["tune", finished.teacher("bi"), *options],
    )
case("push of no model", lambda folder, _: ["push", folder, "a/b"])
case("push to a bad name", lambda folder, finished: ["push", finished.teacher("bi"), "a b"])

# --- outputs ----------------------------------------------------------------------------------------------------------


def output_case(title, make, *options, command="score"):
    def prepare(folder, finished):
        model = folder / "model"
        shutil.copytree(finished.teacher("bi"), model)
        pairs(folder)
        (folder / "mine.tsv").write_text("mine")
        target = make(folder)
        argv = {
            "score": ["score", model, folder / "pairs.tsv", "-o", target],
            "embed": ["embed", model, folder / "pairs.tsv", "--column", "query", "-o", target],
            "prepare": ["prepare", folder / "pairs.tsv", "--column", "query", "--blind", "-o", target],
            "dropped": [
                "prepare",
                folder / "pairs.tsv",
                "--column",
                "query",
                "--blind",
                "-o",
                folder / "mine2.tsv",
                "--dropped",
                target,
            ],
            "layout": ["layout", model, target, "--for", "optimum"],
            "trim": ["trim", model, target, "--texts", f"{folder / 'pairs.tsv'}:query"],
            "changed": [
                "trim",
                model,
                folder / "trimmed",
                "--texts",
                f"{folder / 'pairs.tsv'}:query",
                "--changed",
                target,
            ],
            "benchmark": ["benchmark", model, "--pairs", folder / "pairs.tsv", "--seconds", "0.1", "-o", target],
            "plan": ["plan", "--budget-mb", "50", "-o", target],
            "synthesize": ["synthesize", target, "--pairs", "4", "--base-url", "http://127.0.0.1:9/v1"],
        }[command]
        return [*argv, *options]

    case(f"{command} onto {title}", prepare)


def linked(folder, goal, hard=False):
    link = folder / "link.tsv"
    os.link(folder / goal, link) if hard else link.symlink_to(folder / goal)
    return link


for command in ("score", "embed", "prepare", "dropped", "changed"):
    output_case("an input", lambda folder: folder / "pairs.tsv", "--overwrite", command=command)
    output_case(
        "an input by another spelling",
        lambda folder: folder / "model" / ".." / "pairs.tsv",
        "--overwrite",
        command=command,
    )
    output_case(
        "a hard link of an input", lambda folder: linked(folder, "pairs.tsv", hard=True), "--overwrite", command=command
    )
    output_case("a link to an input", lambda folder: linked(folder, "pairs.tsv"), "--overwrite", command=command)
    output_case(
        "a link to a file of the user's", lambda folder: linked(folder, "mine.tsv"), "--overwrite", command=command
    )
    output_case("a file of the user's", lambda folder: folder / "mine.tsv", command=command)
    output_case("a path in a model folder", lambda folder: folder / "model" / "out.tsv", command=command)
    output_case("a path below a file", lambda folder: folder / "mine.tsv" / "out.tsv", command=command)
    output_case("a folder", lambda folder: folder, "--overwrite", command=command)
    output_case("a long name", lambda folder: folder / ("x" * 300 + ".tsv"), command=command)
    output_case("a place that is not there", lambda folder: folder / "no" / "out.tsv", command=command)
for command in ("score", "embed"):
    output_case(
        "the model's weights", lambda folder: folder / "model" / "model.safetensors", "--overwrite", command=command
    )
for command in ("layout", "trim", "benchmark", "plan", "synthesize"):
    output_case("a folder of the user's", lambda folder: folder, command=command)
    output_case("the model", lambda folder: folder / "model", command=command)
    output_case("a path in the model", lambda folder: folder / "model" / "new", command=command)
    output_case("a file", lambda folder: folder / "mine.tsv", command=command)
    output_case("a path below a file", lambda folder: folder / "mine.tsv" / "new", command=command)
    output_case("a link to a folder", lambda folder: linked(folder, "model"), command=command)
    output_case("a dangling link", lambda folder: linked(folder, "nowhere"), command=command)
    output_case("a long name", lambda folder: folder / ("x" * 300), command=command)

# --- model folders ----------------------------------------------------------------------------------------------------


def folder_case(title, damage, command="score"):
    def prepare(folder, finished):
        model = folder / "model"
        shutil.copytree(finished.teacher("bi"), model)
        damage(model)
        argv = {
            "score": ["score", model, pairs(folder), "-o", folder / "out.tsv"],
            "calibrated": ["score", model, pairs(folder), "-o", folder / "out.tsv", "--calibrated"],
            "trim": ["trim", model, folder / "new", "--texts", f"{pairs(folder)}:query"],
            "embed": ["embed", model, pairs(folder), "--column", "query", "-o", folder / "out.npy"],
            "layout": ["layout", model, folder / "new", "--for", "optimum"],
            "benchmark": ["benchmark", model, "--pairs", pairs(folder), "--seconds", "0.1", "-o", folder / "report"],
            "push": ["push", model, "team/model", "--dry-run"],
        }
        return argv[command]

    case(f"{command} a model folder: {title}", prepare)


def written(name, content):
    def write(model):
        path = model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def edited(name, change):
    def edit(model):
        value = json.loads((model / name).read_text())
        value = change(value) or value
        (model / name).write_text(json.dumps(value))

    return edit


def replaced_by(name, make):
    def replace(model):
        (model / name).unlink()
        make(model / name)

    return replace


JSONS = {
    "nothing": "",
    "null": "null",
    "a number": "3",
    "a text": '"x"',
    "a list": "[1]",
    "deep": "[" * 5000 + "]" * 5000,
    "a huge number": '{"a": ' + "9" * 5000 + "}",
    "no UTF-8": b"\xff\xfe{}",
    "zeros": b"\0" * 50,
}
for name in (
    "modules.json",
    "config.json",
    "artefact.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "1_Pooling/config.json",
):
    for title, content in JSONS.items():
        if (name, title) != ("1_Pooling/config.json", "nothing"):
            folder_case(f"{name} holds {title}", written(name, content))
    folder_case(f"{name} is a folder", replaced_by(name, Path.mkdir))
    folder_case(f"{name} is a pipe", replaced_by(name, os.mkfifo))
    folder_case(f"{name} is a link out", replaced_by(name, lambda path: path.symlink_to("/etc/passwd")))
for path in ("/etc", "../../x", "..", "~", "a\0b", 3, None):
    folder_case(
        f"modules.json with the path {path!r}",
        edited("modules.json", lambda value, path=path: value[1].__setitem__("path", path)),
    )
for kind in (
    "os.system",
    "subprocess.Popen",
    "sentence_transformers.util.http_get",
    "sentence_transformers.evil.Transformer",
    "custom.Pooling",
    "",
    None,
    "sentence_transformers.sentence_transformer.modules.WordEmbeddings",
):
    folder_case(
        f"modules.json with the type {kind!r}",
        edited("modules.json", lambda value, kind=kind: value[1].__setitem__("type", kind)),
    )
for title, change in {
    "vocab_size 10**12": {"vocab_size": 10**12},
    "hidden_size a text": {"hidden_size": "x"},
    "model_type unknown": {"model_type": "evil"},
    "code of its own": {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}},
    "layers 10**9": {"num_hidden_layers": 10**9},
    "labels 10**9": {"num_labels": 10**9},
    "parts of its own 10**9": {"text_config": {"num_hidden_layers": 10**9}, "num_experts": 10**9},
    "negative positions": {"hidden_size": -1},
}.items():
    folder_case(f"config.json with {title}", edited("config.json", lambda value, change=change: value.update(change)))
for title, change in {
    "trust_remote_code": {"model_args": {"trust_remote_code": True}},
    "another tokenizer": {"tokenizer_name_or_path": "evil/model"},
    "a length that is a text": {"max_seq_length": "x"},
    "a cache": {"model_args": {"cache_dir": "/tmp/x"}},
    "a graph elsewhere": {"model_args": {"file_name": "../../x"}},
}.items():
    folder_case(
        f"sentence_bert_config.json with {title}",
        edited("sentence_bert_config.json", lambda value, change=change: value.update(change)),
    )
CALIBRATIONS = {
    "a kind unknown": '{"kind": "evil", "model": "bi_encoder"}',
    "the scores of another kind of model": '{"kind": "platt", "model": "cross_encoder", "slope": 1, "bias": 0}',
    "a slope of nothing": '{"kind": "platt", "model": "bi_encoder", "slope": 0, "bias": 0}',
    "an infinite bias": '{"kind": "platt", "model": "bi_encoder", "slope": 1, "bias": 1e999}',
    "a boolean for a temperature": '{"kind": "temperature", "model": "bi_encoder", "temperature": true}',
    "steps that fall": '{"kind": "isotonic", "model": "bi_encoder", "scores": [0, 1], "probabilities": [1, 0]}',
    "steps beyond all measure": '{"kind": "isotonic", "model": "bi_encoder", "scores": [0, 1e308], "probabilities": [0, 9]}',
    "a threshold that is a list": '{"kind": "platt", "model": "bi_encoder", "slope": 1, "bias": 0, "threshold": [1]}',
    "20 MB": '{"kind": "platt", "note": "' + "x" * 20_000_000 + '"}',
}
for title, content in (JSONS | CALIBRATIONS).items():
    folder_case(f"calibration.json holds {title}", written("calibration.json", content), command="calibrated")
for title, make in {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link out": lambda path: path.symlink_to("/etc/passwd"),
}.items():
    folder_case(
        f"calibration.json is {title}", lambda model, make=make: make(model / "calibration.json"), command="calibrated"
    )
folder_case("an adapter of another model", written("adapter_config.json", '{"base_model_name_or_path": "evil/model"}'))
folder_case("a pickle alone", lambda model: (model / "model.safetensors").rename(model / "pytorch_model.bin"))
folder_case(
    "shards elsewhere",
    lambda model: (
        (model / "model.safetensors").unlink()
        or written("model.safetensors.index.json", '{"weight_map": {"a": "../../x"}}')(model)
    ),
)
folder_case(
    "shards that are not there",
    lambda model: (
        (model / "model.safetensors").unlink()
        or written("model.safetensors.index.json", '{"weight_map": {"a": "b"}}')(model)
    ),
)
folder_case(
    "token ids beyond the table",
    edited(
        "tokenizer.json",
        lambda value: value["model"]["vocab"].update(
            {piece: number + 100_000 for piece, number in value["model"]["vocab"].items() if not piece.startswith("[")}
        ),
    ),
)
for title, content in {"empty": b"", "a header of 2**63": b"\xff" * 8, "no header": b"\0" * 100, "half": None}.items():
    folder_case(
        f"weights: {title}",
        lambda model, content=content: (model / "model.safetensors").write_bytes(
            (model / "model.safetensors").read_bytes()[:5000] if content is None else content
        ),
    )
folder_case("a pipe beside the weights", lambda model: os.mkfifo(model / "notes"))
folder_case("a link out beside the weights", lambda model: (model / "notes").symlink_to("/etc"))
folder_case("a pipe beside the weights", lambda model: os.mkfifo(model / "notes"), command="trim")
folder_case("a socket", lambda model: socket.socket(socket.AF_UNIX).bind(os.path.relpath(model / "s")))
for title, path in {"a device": "/dev/null", "the root": "/", "a long name": "x" * 300, "a file": __file__}.items():
    case(
        f"score with a model that is {title}",
        lambda folder, _, path=path: ["score", path, pairs(folder), "-o", folder / "out.tsv"],
    )

for command in ("embed", "layout", "benchmark", "trim", "push"):
    for name in ("modules.json", "config.json", "artefact.json", "tokenizer.json"):
        if (command, name) not in READ_NEVER:
            folder_case(f"{name} cut off", truncated(name), command=command)
    folder_case("weights cut off", truncated("model.safetensors"), command=command if command != "push" else "embed")
    folder_case(
        "layers 10**9", edited("config.json", lambda value: value.update(num_hidden_layers=10**9)), command=command
    )
    folder_case(
        "a run's folder", lambda model: (shutil.move(model, model.parent / "x"), model.mkdir()), command=command
    )
    folder_case("a file", lambda model: (shutil.rmtree(model), model.write_text("x")), command=command)

# --- tables that are written --------------------------------------------------------------------------------------------

for name in ("out.xlsx", "out", "out.txt", "out.json", "out.csv.zip", "out.parquet.gz", ".csv", "out.npy"):
    case(
        f"score into {name}",
        lambda folder, finished, name=name: ["score", finished.teacher("bi"), pairs(folder), "-o", folder / name],
    )
for name in ("out.csv", "out", "out.npz", "out.npy.gz"):
    case(
        f"embed into {name}",
        lambda folder, finished, name=name: [
            "embed",
            finished.teacher("bi"),
            pairs(folder),
            "--column",
            "query",
            "-o",
            folder / name,
        ],
    )
for name, content in {
    "CP949": "id,resume\n1,이력서\n".encode("cp949"),
    "a row too long": b"id,resume\n1,a,b\n",
    "a number alone": b"7",
    "zeros": b"\0" * 500,
    "a list": None,
    "a quote left open": b'id,resume\n1,"a\n',
    "no such column": b"id,cv\n1,a\n",
    "a NUL": b"id,resume\n1,a\0b\n",
    "both spellings": "id,이력서,\u110b\u1175\u1105\u1167\u11a8\u1109\u1165\n1,a,b\n".encode(),
}.items():

    def prepare_case(folder, _, content=content):
        path = folder / ("in.jsonl" if content is None else "in.csv")
        path.write_bytes(b'{"resume": ["a"]}\n' if content is None else content)
        return ["prepare", path, "--blind", "-o", folder / f"out{path.suffix}", "--dropped", folder / "dropped.csv"]

    case(f"prepare --blind: {name}", prepare_case)

# --- scorers ----------------------------------------------------------------------------------------------------------


def scorer_case(title, value, *options):
    def prepare(folder, _):
        (folder / "evil").mkdir()
        text = (
            value
            if isinstance(value, str)
            else json.dumps(value).replace("PORT", str(PORT[0])).replace("HERE", str(folder))
        )
        (folder / "evil" / "scorer.json").write_text(text)
        return ["score", folder / "evil", pairs(folder), "-o", folder / "out.tsv", *options]

    case(f"scorer.json: {title}", prepare)


PORT = [0]
ENDPOINT = {"model": "m", "base_url": "http://127.0.0.1:PORT/v1", "input_price": 0, "output_price": 0}
scorer_case("remote", {"kind": "remote", "endpoint": ENDPOINT})
scorer_case("remote, another host allowed", {"kind": "remote", "endpoint": ENDPOINT}, "--allow-host", "api.openai.com")
scorer_case(
    "remote, another key",
    {"kind": "remote", "endpoint": ENDPOINT | {"key_variable": "AWS_SECRET_ACCESS_KEY"}},
    "--allow-host",
    "127.0.0.1",
)
scorer_case("remote, a cache elsewhere", {"kind": "remote", "endpoint": ENDPOINT, "cache": "HERE/stolen"})
scorer_case("paragraphs of a model elsewhere", {"kind": "paragraphs", "model": "/etc"})
scorer_case("paragraphs above", {"kind": "paragraphs", "model": "../../x"})
for title, value in {
    "list": [],
    "empty": "",
    "unknown kind": {"kind": "os.system"},
    "cascade": {"kind": "cascade"},
    "kind a list": {"kind": []},
    "tfidf alone": {"kind": "tfidf"},
    "deep": "[" * 5000,
}.items():
    scorer_case(title, value)


def big_answer(folder, _):
    (folder / "evil").mkdir()
    (folder / "evil" / "scorer.json").write_text(
        json.dumps({"kind": "remote", "endpoint": ENDPOINT}).replace("PORT", str(PORT[0]))
    )
    return ["score", folder / "evil", pairs(folder), "-o", folder / "out.tsv", "--allow-host", "127.0.0.1"]


case("an endless answer of an allowed host", big_answer)

# --- signals ----------------------------------------------------------------------------------------------------------


def signal_case(title, damage):
    def prepare(folder, finished):
        shutil.copytree(finished.folder, folder / "run")
        shutil.rmtree(folder / "run" / "student")
        damage(sorted((folder / "run" / "signals").rglob("scores-*.arrow"))[0])
        return ["train-student", write_recipe(folder, **MORE)]

    case(f"signals: {title}", prepare)


def flip(place):
    def change(path):
        content = bytearray(path.read_bytes())
        content[int(len(content) * place)] ^= 1
        path.write_bytes(content)

    return change


for place in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999):
    signal_case(f"a bit flipped at {place:.0%}", flip(place))
for title, content in {"empty": b"", "text": b"hello", "zeros": b"\0" * 1000, "a header alone": b"ARROW1\0\0"}.items():
    signal_case(title, lambda path, content=content: path.write_bytes(content))
    signal_case(
        f"{title}, without a checksum",
        lambda path, content=content: path.unlink() or path.with_name("scores-0.arrow").write_bytes(content),
    )
signal_case("a pipe", lambda path: path.unlink() or os.mkfifo(path))
signal_case("a folder", lambda path: path.unlink() or path.mkdir())

# --- data -------------------------------------------------------------------------------------------------------------

for title, name, content in (
    ("zeros", "p.tsv", b"\0" * 1000),
    ("UTF-16", "p.csv", GOOD.encode("utf-16")),
    ("one line", "p.jsonl", b"{" * 5000),
    ("deep", "p.jsonl", b"[" * 5000 + b"]" * 5000),
    ("numbers", "p.jsonl", b"1\n2\n"),
    ("quote left open", "p.csv", b'query,document\n"a,b\n'),
    ("Parquet cut", "p.parquet", b"PAR1" + b"\0" * 50 + b"PAR1"),
    ("long name", "x" * 300 + ".tsv", None),
    ("no suffix", "p", GOOD.encode()),
):

    def data(folder, finished, name=name, content=content):
        if content is not None:
            (folder / name).write_bytes(content)
        return ["score", finished.teacher("bi"), folder / name, "-o", folder / "out.tsv"]

    case(f"pairs: {title}", data)
