"""`make test-runtime`: environments without torch serve what the full one has made, and give the same numbers.

    python -m tests.install.runtime            # OpenVINO's and ONNX's, one after the other
    python -m tests.install.runtime openvino

Tiny models are exported here, in the full environment; the serving ones score, embed and tune them. Commands that need more
say which package, in one line, with exit code 2.
"""

import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.conftest import ROOT
from tests.install.environments import Environment, copy_of_the_sources
from tests.tiny.conftest import SENTENCES, build

MOST_MB = 300
PROGRAM = """
import json, sys
from distill.runtime import load
model, texts = load(sys.argv[1], n_threads=1), json.loads(sys.argv[2])
scores = model.score(texts, texts[::-1])
ranked = model.rank(texts[0], texts, top_k=3)[0].tolist()
vectors = model.encode(texts).tolist() if model.kind == "bi_encoder" else []
heavy = sorted({"torch", "transformers", "scipy", "datasets"} & set(sys.modules))
print(json.dumps([scores.tolist(), ranked, vectors, heavy]))
"""
# commands that need more than a serving install has
LACKING = (
    "run quickstart",
    "train-teacher quickstart",
    "cache-signals quickstart",
    "build-student quickstart",
    "train-student quickstart",
    "export quickstart",
    "benchmark quickstart",
    "cascade quickstart",
    "ablate ablation_resume_jd --smoke",
    "plan --budget-mb 5",
    "trim {torch} trimmed --texts texts.txt",
    "fetch-data stsb",
    "score {torch} pairs.csv -o out.csv",
    "score {model} owner/name -o out.csv",
    "score {model} pairs.parquet -o out.csv",
    "score {model} pairs.csv -o out.parquet",
    "benchmark {model} --pairs pairs.csv",
    "layout {model} laid --for {tool}",
    "push {model} name/model",
)
WORKING = (
    "synthesize made --pairs 4 --estimate",
    "index-quality {bi} pairs.csv",
    "prepare resumes.csv -o blinded.csv --blind",
    "fetch-data ko_en --from held",
    "tune {bi} --seconds 1 --threads 1",
    "embed {bi} texts.txt -o texts.npy",
    "score {model} pairs.csv -o scores.tsv",
    "--version",
    "--help",
)


def made_folders(root: Path) -> dict[str, Path]:
    """Write a torch folder, its exports and a static model."""
    from distill.models.modeling import load_model, save_model
    from distill.recipe.schema import Static
    from students.cut.static import static_model
    from students.export.gate import Thresholds
    from students.export.stage import export_model

    pairs = [(left, right) for left in SENTENCES for right in SENTENCES if left != right]
    sources = {
        "bi": build(root / "bi", "bi_encoder", "wordpiece"),
        "cross": build(root / "cross", "cross_encoder", "unigram"),
    }
    made = {"torch": sources["bi"]}
    for kind, source in sources.items():
        for form in ("openvino", "onnx"):
            for precision in ("fp32", "int8"):
                target = root / f"{kind}-{form}-{precision}"
                export_model(
                    source,
                    target,
                    format=form,
                    precision=precision,
                    held_back=pairs[:20],
                    calibration=pairs,
                    n_calibration=20,
                    n_threads=1,
                    thresholds=Thresholds(),
                    may_search=False,
                )
                made[target.name] = target
    static = static_model(load_model(sources["bi"]), Static(), SENTENCES, max_length=96)
    save_model(static, root / "static")
    return {**made, "static": root / "static"}


def write_inputs(folder: Path) -> None:
    """Write the files that the commands read."""
    rows = [
        f"{left}\t{right}\t{number % 2}"
        for number, (left, right) in enumerate(zip(SENTENCES, SENTENCES[::-1], strict=True))
    ]
    (folder / "pairs.tsv").write_text("\n".join(["query\tdocument\tlabel", *rows]) + "\n", encoding="utf-8")
    lines = [",".join(f'"{value}"' for value in row.split("\t")) for row in rows]
    (folder / "pairs.csv").write_text("\n".join(["query,document,label", *lines]) + "\n", encoding="utf-8")
    (folder / "resumes.csv").write_text('resume\n"Name: Kim Minsu, python"\n', encoding="utf-8")
    (folder / "texts.txt").write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    (folder / "held").mkdir()
    (folder / "held/train.tsv").write_text("ko\ten\n가\ta\n", encoding="utf-8")
    (folder / "pairs.parquet").write_bytes(b"PAR1 a serving install reads no further")


def serves(environment: Environment, model: Path, work: Path) -> float:
    """Try a folder by every way that serves it; return the greatest difference to the full environment's scores."""
    from distill.runtime import load

    here = load(model, n_threads=1)
    program = environment.call("python", "-c", PROGRAM, str(model), json.dumps(SENTENCES), cwd=work)
    scores, ranked, vectors, heavy = json.loads(program.stdout)
    assert heavy == [], f"{model.name}: {heavy} were imported"
    expected = here.score(SENTENCES, SENTENCES[::-1])
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert ranked == here.rank(SENTENCES[0], SENTENCES, top_k=3)[0].tolist()
    if vectors:
        np.testing.assert_allclose(vectors, here.encode(SENTENCES), atol=1e-5)
        embedded = work / f"{model.name}.npy"
        environment.call("distill", "embed", str(model), "texts.txt", "-o", str(embedded), cwd=work)
        np.testing.assert_allclose(np.load(embedded), here.encode(SENTENCES), atol=1e-5)
    scored = work / f"{model.name}.jsonl"
    environment.call("distill", "score", str(model), "pairs.tsv", "-o", str(scored), cwd=work)
    lines = [json.loads(line)["score"] for line in scored.read_text(encoding="utf-8").splitlines()]
    np.testing.assert_allclose(lines, expected, atol=2e-6 + 1e-5)
    return float(np.abs(np.array(scores) - expected).max())


def try_commands(environment: Environment, names: dict[str, str], work: Path) -> list[str]:
    """Try each command; return a line for each that says what it lacks."""
    said = []
    for line in WORKING:
        environment.call("distill", *line.format(**names).split(), cwd=work)
    for line in LACKING:
        done = environment.call("distill", *line.format(**names).split(), cwd=work, code=2)
        messages = [text for text in done.stderr.splitlines() if not text.startswith("recipe quickstart: ")]
        assert len(messages) == 1 and re.search(
            r"needs the package \S+, which is not installed here: pip install", messages[0]
        ), (line, done.stderr)
        said.append(f"  distill {line}: {messages[0].removeprefix('error: ')}")
    return said


def check(form: str, root: Path, folders: dict[str, Path]) -> None:
    """Make a serving environment and try all of it."""
    environment, work = Environment(ROOT / ".venv-runtime" / form), root / f"work-{form}"
    work.mkdir()
    write_inputs(work)
    sources = copy_of_the_sources(root / f"sources-{form}")
    listed = {"openvino": "runtime.txt", "onnx": "runtime-onnx.txt"}[form]
    environment.install("--no-compile", "--no-deps", str(sources))
    environment.install("--no-compile", "--no-deps", "-r", f"requirements/{listed}")
    print(f"{listed}: {environment.describe()}")
    served = [name for name in folders if f"-{form}-" in name or name == "static"]
    for name in served:
        print(f"  {name}: largest difference to the full environment {serves(environment, folders[name], work):.1g}")
    names = {
        "torch": str(folders["torch"]),
        "model": str(folders[f"cross-{form}-fp32"]),
        "bi": str(folders[f"bi-{form}-fp32"]),
        "tool": {"openvino": "optimum", "onnx": "tei"}[form],
    }
    print(*try_commands(environment, names, work), sep="\n")
    other = "onnx" if form == "openvino" else "openvino"
    done = environment.call(
        "distill", "score", str(folders[f"bi-{other}-fp32"]), "pairs.csv", "-o", "other.csv", cwd=work, code=2
    )
    assert {"onnx": "onnxruntime", "openvino": "openvino"}[other] in done.stderr, done.stderr
    installed = environment.describe()
    print(f"{listed}: {installed} after use")
    assert float(installed.split()[0]) < MOST_MB, installed


def main(forms: Sequence[str]) -> None:
    """Try the serving environments."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        folders = made_folders(root)
        for form in forms or ("openvino", "onnx"):
            check(form, root, folders)


if __name__ == "__main__":
    main(sys.argv[1:])
