"""What each kind of bad input says: python -m tests.slow.bad_input prints a Markdown table.

Every case goes through the real command in-process. Expected is exit code 2 (1 where a job fails) and a message without
a traceback; the script exits with 1 where one differs.
"""

import fcntl
import gzip
import io
import os
import shutil
import sys
import tempfile
from contextlib import redirect_stderr
from pathlib import Path

from tests.conftest import write_recipe
from tests.slow.commands import GOOD, HEADER, MORE, finished_run, in_process, pairs, truncated

CASES, KEPT = [], []


def case(title, expected=2):
    """Register a function that prepares a folder and returns the command line."""

    def register(prepare):
        CASES.append((title, expected, prepare))
        return prepare

    return register


def data_case(title, name, content):
    """A recipe that trains on a file with this content (None: there is no file)."""

    def prepare(folder, _):
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return ["train-teacher", write_recipe(folder, data={"train": str(folder / name)})]

    CASES.append((title, 2, prepare))


def recipe_case(title, changes, *overrides, command="train-teacher", expected=2):
    """A recipe with these changes."""

    def prepare(folder, finished):
        given = changes(folder, finished) if callable(changes) else changes
        return [command, write_recipe(folder, **given), *overrides]

    CASES.append((title, expected, prepare))


def score_case(title, damage, *options):
    """Scoring with a damaged copy of a finished cross-encoder."""

    def prepare(folder, finished):
        model = folder / "model"
        shutil.copytree(finished.teacher("cross"), model)
        damage(model)
        return ["score", model, pairs(folder), "-o", folder / "scores.tsv", *options]

    CASES.append((title, 2, prepare))


def without(piece):
    return lambda model: (model / piece).unlink()


compressed = gzip.compress(GOOD.encode())
data_case("wrong columns", "pairs.tsv", GOOD.replace("query\tdocument\tlabel", "resume\tjd\tmatch"))
data_case("file with another delimiter", "pairs.csv", "query;document;label\na;b;1\n")
data_case("empty file", "pairs.tsv", "")
data_case("header without rows", "pairs.tsv", HEADER)
data_case("repeated column in the header", "pairs.tsv", "query\tquery\tlabel\na\tb\t1\n")
data_case("NaN as a label", "pairs.tsv", GOOD + "a\tb\tNaN\n")
data_case("word as a label", "pairs.tsv", GOOD + "a\tb\tgood\n")
data_case("label out of range", "pairs.tsv", GOOD + "a\tb\t4\n")
data_case("empty text", "pairs.tsv", GOOD + " \tb\t1\n")
data_case("row with too many values", "pairs.tsv", GOOD + "a\tb\tc\td\t1\n")
data_case("CP949 file", "pairs.tsv", (HEADER + "이력서\t공고\t1\n").encode("cp949"))
data_case(
    "CP949 file, ASCII header, many rows",
    "pairs.csv",
    ("query,document,label\n" + "경력,채용,1\n" * 9000).encode("cp949"),
)
data_case("cut .gz", "pairs.tsv.gz", compressed[: len(compressed) // 2])
data_case(".gz that is none", "pairs.tsv.gz", GOOD)
data_case("wrong suffix", "pairs.xlsx", GOOD)
data_case("missing file", "pairs.tsv", None)
data_case("broken JSON lines", "pairs.jsonl", '{"query": "a", "document"\n')
data_case("broken Parquet", "pairs.parquet", b"PAR1 this is none")
data_case("one query only", "pairs.tsv", HEADER + "".join(f"the query\tdocument {i}\t{i % 2}\n" for i in range(9)))
recipe_case("folder instead of a file", lambda folder, _: {"data": {"train": str(folder)}})
recipe_case("hub dataset without a network", {"data": {"train": "nobody/nothing"}})
recipe_case("unknown key", {"training": {"learning_rte": 1e-4}})
recipe_case("misspelt section", {"trainig": {"epochs": 1}})
recipe_case("wrong type", {"training": {"epochs": "three"}})
recipe_case("negative learning rate", {}, "training.learning_rate=-1e-4")
recipe_case("unknown teacher", {"objectives": {"score_match": {"teacher": "cros"}}})
recipe_case("kl without candidates", {"objectives": {"score_match": {"loss": "kl"}}})
recipe_case(
    "embedding_match on a cross-encoder",
    {"objectives": {"embedding_match": {"teacher": "cross"}}, "student": {"kind": "bi_encoder"}},
)
recipe_case("several problems at once", {"trainig": {}, "training": {"epochs": 0}, "seed": "x"})
recipe_case("backbone that is not there", {"teachers": {"cross": {"backbone": "./models/none"}}})
recipe_case("backbone with a wrong name", {"teachers": {"cross": {"backbone": "BAAI/bge m3"}}})
recipe_case("backbone from the hub without a network", {"teachers": {"cross": {"backbone": "BAAI/bge-m3"}}})
recipe_case("backbone folder without a model", lambda folder, _: {"teachers": {"cross": {"backbone": str(folder)}}})
recipe_case(
    "max_length over the positions",
    lambda _, finished: {"teachers": {"cross": {"backbone": str(finished.teacher("cross")), "max_length": 512}}},
)
recipe_case("max_length over a fresh backbone's", {"teachers": {"cross": {"max_length": 512}}})
recipe_case("fp16 without a GPU", {}, "training.precision=fp16", expected=1)
recipe_case("loss that is no number", {}, "training.learning_rate=1e30", "training.max_grad_norm=null", expected=1)
recipe_case("signals before the teacher", {}, command="cache-signals")
recipe_case("student before the teacher", {}, command="train-student")
recipe_case("export before the student", {}, command="export")
recipe_case("report before the student", {}, command="benchmark")
recipe_case("override without =", {}, "training.epochs")
recipe_case("override that is no YAML", {}, "training.epochs=[1")
recipe_case("output_dir below a file", lambda folder, _: {"output_dir": str(folder / "recipe.yaml" / "run")})


@case("layers out of range")
def layers_out_of_range(folder, finished):
    shutil.copytree(finished.folder, folder / "run")
    return ["train-student", write_recipe(folder, **MORE, student={"layers": [5]}), "overwrite=true"]


@case("changed recipe on a finished folder")
def changed_recipe(folder, finished):
    shutil.copytree(finished.folder, folder / "run")
    return ["train-teacher", write_recipe(folder, **MORE), "training.learning_rate=1.0e-4", "seed=7"]


@case("student before its signals")
def no_signals(folder, finished):
    shutil.copytree(finished.folder, folder / "run")
    shutil.rmtree(folder / "run" / "student")
    return ["train-student", write_recipe(folder, **MORE), "signals.precision=bf16"]


@case("damaged signals")
def damaged_signals(folder, finished):
    shutil.copytree(finished.folder, folder / "run")
    shutil.rmtree(folder / "run" / "student")
    shard = next((folder / "run" / "signals").rglob("*.arrow"))
    shard.write_bytes(shard.read_bytes()[:100])
    return ["train-student", write_recipe(folder, **MORE)]


@case("output_dir holds something else")
def foreign_folder(folder, _):
    (folder / "run" / "teachers" / "cross").mkdir(parents=True)
    (folder / "run" / "teachers" / "cross" / "notes.txt").write_text("mine")
    return ["train-teacher", write_recipe(folder)]


@case("output folder in use")
def in_use(folder, _):
    work = folder / "run" / ".work"
    work.mkdir(parents=True)
    held = (work / "lock").open("w")
    held.write("4321")
    held.flush()
    fcntl.flock(held, fcntl.LOCK_EX)
    KEPT.append(held)
    return ["train-teacher", write_recipe(folder)]


@case("read-only output")
def read_only(folder, _):
    target = folder / "locked"
    target.mkdir()
    target.chmod(0o555)
    if os.access(target, os.W_OK):  # root writes everywhere else
        target = Path("/sys/kernel/matchdistill")
    return ["train-teacher", write_recipe(folder, output_dir=str(target / "run"))]


@case("recipe that is no YAML")
def no_yaml(folder, _):
    (folder / "recipe.yaml").write_text("name: [\n")
    return ["run", folder / "recipe.yaml"]


@case("recipe that is not there")
def no_recipe(folder, _):
    return ["run", folder / "none.yaml"]


@case("recipe that is empty")
def empty_recipe(folder, _):
    (folder / "recipe.yaml").write_text("")
    return ["train-teacher", folder / "recipe.yaml"]


@case("unknown option")
def unknown_option(folder, _):
    return ["run", write_recipe(folder), "--fast"]


@case("unknown command")
def unknown_command(folder, _):
    return ["distil", write_recipe(folder)]


@case("--threads 0")
def no_threads(folder, finished):
    return ["score", finished.teacher("cross"), pairs(folder), "-o", folder / "scores.tsv", "--threads", "0"]


@case("embed with a cross-encoder")
def embed_cross(folder, finished):
    (folder / "texts.txt").write_text("a\n")
    return ["embed", finished.teacher("cross"), folder / "texts.txt", "-o", folder / "vectors.npy"]


@case("output whose folder is missing")
def no_parent(folder, finished):
    return ["score", finished.teacher("cross"), pairs(folder), "-o", folder / "no" / "scores.tsv"]


@case("output that is a folder")
def output_is_folder(folder, finished):
    return ["score", finished.teacher("cross"), pairs(folder), "-o", folder]


@case("model folder that is not there")
def no_model(folder, _):
    return ["score", folder / "none", pairs(folder), "-o", folder / "scores.tsv"]


score_case("model folder without modules.json", without("modules.json"))
score_case("model folder without config.json", without("config.json"))
score_case("model folder without weights", without("model.safetensors"))
score_case("model folder without tokenizer.json", without("tokenizer.json"))
score_case("model folder without a Dense's weights", without("2_Dense/model.safetensors"))
score_case("cut model.safetensors", truncated("model.safetensors"))
score_case("cut Dense weights", truncated("2_Dense/model.safetensors"))
score_case("damaged config.json", truncated("config.json"))
score_case("damaged tokenizer.json", truncated("tokenizer.json"))
score_case("runtime openvino without a graph", lambda model: None, "--runtime", "openvino")
score_case("runtime onnx without a graph", lambda model: None, "--runtime", "onnx")
score_case("unknown runtime", lambda model: None, "--runtime", "tensorrt")
score_case("int8 of a float model", lambda model: None, "--precision", "int8")
score_case("wrong column of a file to score", lambda model: None, "--query-column", "resume")
score_case("max_length over the model's", lambda model: None, "--max-length", "4096")

recipe_case("mlm that is asked to teach", {"teachers": {"cross": {"kind": "mlm", "head": None}}})
recipe_case("mlm with a loss", {"teachers": {"more": {"kind": "mlm", "backbone": "some/encoder", "loss": "bce"}}})
recipe_case("baseline of an unknown kind", {"benchmark": {"baselines": {"x": {"kind": "bm25"}}}})
recipe_case(
    "paragraphs of a cross-encoder", {"benchmark": {"baselines": {"x": {"kind": "paragraphs", "model": "cross"}}}}
)
recipe_case(
    "remote baseline without a price",
    {"benchmark": {"baselines": {"x": {"kind": "remote", "endpoint": {"modle": "m"}}}}},
)
recipe_case("sections of an unknown kind", {"data": {"resume": {"keep": ["hobbies"]}}})


def table_case(title, command, content, *options):
    """A command over a file with this content."""

    def prepare(folder, _):
        (folder / "in.csv").write_bytes(content)
        return [command, folder / "in.csv", "-o", folder / "out.csv", *options]

    CASES.append((title, 2, prepare))


RESUMES = "id,resume\n1,텍스트\n".encode()
table_case("nothing to prepare", "prepare", RESUMES)
table_case("column of résumés that is not there", "prepare", RESUMES, "--blind", "--column", "cv")
table_case("résumés in CP949", "prepare", "id,resume\n1,이력서\n".encode("cp949"), "--blind")
table_case("résumés without a row", "prepare", b"id,resume\n", "--blind")
table_case("résumés of an empty file", "prepare", b"", "--blind")


@case("synthesis without a key")
def _(folder, _):
    os.environ.pop("OPENAI_API_KEY", None)
    return ["synthesize", folder / "pairs", "--pairs", "10"]


@case("synthesis in an unknown language")
def _(folder, _):
    return ["synthesize", folder / "pairs", "--pairs", "10", "--languages", "ko,fr"]


@case("synthesis with a model of unknown price")
def _(folder, _):
    return ["synthesize", folder / "pairs", "--pairs", "10", "--model", "some-model"]


@case("ablation of rows that are not there")
def _(folder, _):
    return [
        "ablate",
        Path(__file__).parent.parent.parent / "recipes" / "ablation_resume_jd.yaml",
        "--smoke",
        "--rows",
        "x",
    ]


@case("a recipe where an ablation is expected")
def _(folder, _):
    return ["ablate", write_recipe(folder)]


def shortened(text, folder, finished):
    """The message as a table's cell: without temporary folders, errors only."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    start = next((i for i, line in enumerate(lines) if line.startswith("error:")), 0)
    if any(line.startswith("Traceback") for line in lines):
        lines, start = lines[-1:], 0
    cell = "<br>".join(line.strip() for line in lines[start:])
    for path, name in ((folder, "…"), (finished.folder, "…/finished"), (Path(__file__).parent.parent.parent, ".")):
        cell = cell.replace(str(path), name)
    return cell.replace("|", "\\|")


def main():
    """Print the table; returns how many cases went wrong."""
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory(prefix="bad-input-") as temporary:
        with redirect_stderr(io.StringIO()):
            finished = finished_run(Path(temporary))
        for number, (title, expected, prepare) in enumerate(CASES):
            folder = Path(temporary) / f"{number:02d}"
            folder.mkdir()
            code, text = in_process(prepare(folder, finished))
            bad = code != expected or "Traceback" in text
            wrong += bad
            rows.append(
                f"| {title} | {'**traceback**' if code == -1 else code}{' (!)' if bad else ''} | {shortened(text, folder, finished)} |"
            )
            for file in KEPT:
                file.close()
            KEPT.clear()
    print("| case | exit code | what was printed |\n|---|---|---|")
    print("\n".join(rows))
    print(f"\n{len(CASES)} cases, {wrong} unlike expected", file=sys.stderr)
    return wrong


if __name__ == "__main__":
    sys.exit(min(main(), 1))
