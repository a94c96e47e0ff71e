"""`make test-runtime`: environments without torch serve what the full one has made, and give the same numbers.

    python -m tests.install.runtime            # OpenVINO's and ONNX's, one after the other
    python -m tests.install.runtime openvino

Tiny models are exported here, in the full environment; the serving ones score, embed and tune them. Commands that need more
say which package, in one line, with exit code 2.
"""

import json
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
# a command with all that it takes → the package that the serving install lacks for it
LACKING = {
    ("run", "quickstart"): "accelerate",
    ("train-teacher", "quickstart"): "accelerate",
    ("cache-signals", "quickstart"): "accelerate",
    ("build-student", "quickstart"): "accelerate",
    ("train-student", "quickstart"): "accelerate",
    ("export", "quickstart"): "accelerate",
    ("benchmark", "quickstart"): "accelerate",
    ("cascade", "quickstart"): "accelerate",
    ("ablate", "ablation_resume_jd", "--smoke"): "accelerate",
    ("plan", "--budget-mb", "5"): "accelerate",
    ("trim", "{torch}", "trimmed", "--texts", "texts.txt"): "torch",
    ("fetch-data", "stsb"): "datasets",
    ("score", "{torch}", "pairs.csv", "-o", "out.csv"): "torch",
    ("score", "{model}", "owner/name", "-o", "out.csv"): "datasets",
    ("score", "{model}", "pairs.parquet", "-o", "out.csv"): "pyarrow",
    ("score", "{model}", "pairs.csv", "-o", "out.parquet"): "pyarrow",
    ("benchmark", "{model}", "--pairs", "pairs.csv"): "datasets",
    ("push", "{model}", "name/model"): "huggingface-hub",
    ("layout", "{model}", "laid", "--for", "optimum"): None,
    ("synthesize", "made", "--pairs", "4", "--estimate"): None,
    ("index-quality", "{bi}", "pairs.csv"): None,
    ("prepare", "resumes.csv", "-o", "blinded.csv", "--blind"): None,
}


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
                    source, target, format=form, precision=precision, held_back=pairs[:20], calibration=pairs, n_calibration=20,
                    n_threads=1, thresholds=Thresholds(), may_search=False,
                )  # fmt: skip
                made[target.name] = target
    static = static_model(load_model(sources["bi"]), Static(), SENTENCES, max_length=96)
    save_model(static, root / "static")
    return {**made, "static": root / "static"}


def write_inputs(folder: Path) -> None:
    """Write the files that the commands read."""
    rows = [f"{left}\t{right}\t{number % 2}" for number, (left, right) in enumerate(zip(SENTENCES, SENTENCES[::-1], strict=True))]  # fmt: skip
    (folder / "pairs.tsv").write_text("\n".join(["query\tdocument\tlabel", *rows]) + "\n", encoding="utf-8")
    lines = [",".join(f'"{value}"' for value in row.split("\t")) for row in rows]
    (folder / "pairs.csv").write_text("\n".join(["query,document,label", *lines]) + "\n", encoding="utf-8")
    (folder / "resumes.csv").write_text('resume\n"Name: Kim Minsu, python"\n', encoding="utf-8")
    (folder / "texts.txt").write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
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


def commands_say_what_they_lack(environment: Environment, names: dict[str, str], work: Path) -> list[str]:
    """Try each command; return a line for each."""
    said = []
    for arguments, package in LACKING.items():
        given = [argument.format(**names) for argument in arguments]
        done = environment.call("distill", *given, cwd=work, code=0 if package is None else 2)
        last = done.stderr.strip().splitlines()[-1:] or [""]
        if package is not None:
            assert f"needs the package {package}, which is not installed here: pip install" in last[0], (
                given,
                done.stderr,
            )
            assert "Traceback" not in done.stderr
        said.append(f"  distill {arguments[0]}: {'works' if package is None else last[0].removeprefix('error: ')}")
    return said


def check(form: str, root: Path, folders: dict[str, Path]) -> None:
    """Make a serving environment and try all of it."""
    environment, work = Environment(ROOT / ".venv-runtime" / form), root / f"work-{form}"
    work.mkdir()
    write_inputs(work)
    sources = copy_of_the_sources(root / f"sources-{form}")
    listed = {"openvino": "runtime.txt", "onnx": "runtime-onnx.txt"}[form]
    environment.install("--no-deps", str(sources))
    environment.install("--no-deps", "-r", f"requirements/{listed}")
    print(f"{listed}: {environment.describe()}")
    served = [name for name in folders if f"-{form}-" in name or name == "static"]
    for name in served:
        print(f"  {name}: largest difference to the full environment {serves(environment, folders[name], work):.1g}")
    environment.call("distill", "tune", str(folders[f"bi-{form}-fp32"]), "--seconds", "1", "--threads", "1", cwd=work)
    names = {
        "torch": str(folders["torch"]), "model": str(folders[f"cross-{form}-fp32"]), "bi": str(folders[f"bi-{form}-fp32"]),
    }  # fmt: skip
    print(*commands_say_what_they_lack(environment, names, work), sep="\n")
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
