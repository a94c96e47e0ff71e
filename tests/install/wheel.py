"""`make test-wheel`: a wheel and an sdist are built, hold what they must, and do a job in a clean environment.

python -m tests.install.wheel
"""

import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

from tests.conftest import ROOT
from tests.install.environments import Environment, copy_of_the_sources

# the quickstart, as small as it can be
TINY = (
    "output_dir=run",
    "data.bundled_pairs=240",
    "data.unlabelled_pairs=[]",
    "data.max_labelled=null",
    "teachers.bi.training.epochs=1",
    "student.control=false",
    "benchmark.seconds=0.2",
    "benchmark.max_seconds=0.2",
    "benchmark.throughput_pairs=40",
)
NEEDED = (
    "distill/py.typed",
    "distill/report/report.html",
    "recipes/quickstart.yaml",
    "recipes/korsts.yaml",
    "recipes/accelerate/multi_gpu.yaml",
    "recipes/ci/gate.yaml",
)


def check_contents(built: Path) -> tuple[Path, Path]:
    """Check that wheel and sdist hold every file of ours that is no test, page of the docs or tool of the checkout."""
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    ours = [name for name in listed if name.startswith(("distill/", "recipes/", "students/", "teachers/"))]
    for name, held in ((wheel.name, in_wheel), (sdist.name, in_sdist)):
        missing = sorted({*ours, *NEEDED} - held)
        assert not missing, f"{name} lacks {', '.join(missing)}"
    strange = {name.partition("/")[0] for name in in_wheel} - {"distill", "recipes", "students", "teachers"}
    assert all(name.endswith(".dist-info") for name in strange), f"{wheel.name} brings {sorted(strange)}"
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints/cpu.txt", "requirements/runtime.txt"} <= in_sdist
    return wheel, sdist


def main() -> None:
    """Build, install and try."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sources = copy_of_the_sources(root / "sources")
        builder = Environment(root / "builder")
        builder.install("build")
        builder.call(
            "python", "-m", "build", "--outdir", str(root / "built"), str(sources), cwd=root
        )  # the wheel from the sdist
        wheel, sdist = check_contents(root / "built")
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB")
        environment, work = Environment(ROOT / ".venv-wheel"), root / "work"
        work.mkdir()
        environment.install("-c", "constraints/cpu.txt", f"{wheel}[onnx]")
        print(f"wheel: {environment.describe()}")
        assert environment.call("distill", "--version", cwd=work).stdout.startswith("matchdistill ")
        assert "synthesize" in environment.call("distill", "--help", cwd=work).stdout
        where = environment.call("python", "-c", "import distill; print(distill.__file__)", cwd=work).stdout
        assert str(environment.folder) in where, where
        print(environment.call("distill", "run", "quickstart", *TINY, cwd=work).stdout)
        assert (work / "run/report/index.html").is_file()
        (work / "pairs.csv").write_text("query,document\na cat,a dog\n", encoding="utf-8")
        environment.call("distill", "score", "run/exports/openvino-int8", "pairs.csv", "-o", "scores.csv", cwd=work)
        assert len((work / "scores.csv").read_text(encoding="utf-8").splitlines()) == 2
        missing = environment.call("distill", "run", "korsts", cwd=work, code=2).stderr
        assert "distill fetch-data korsts writes it" in missing, missing
        print(f"wheel: {environment.describe()} after a job")


if __name__ == "__main__":
    main()
