"""Folders opened by readers that this environment cannot hold: earlier releases in Python, transformers.js in Node.

Each is installed from its package index into a temporary folder; without the index, or without Node, the test is skipped.
"""

import json
import shutil
import subprocess
import sys
from itertools import product

import numpy as np
import pytest

from distill.data.pairs import read_columns
from distill.runtime.opening import load
from students.export.layouts import write_layout
from students.export.stage import Thresholds, export_model
from tests.conftest import ROOT
from tests.tiny.conftest import SENTENCES, build

pytestmark = pytest.mark.slow
TOLERANCE = 1e-3
OLD_READERS = {
    "sentence-transformers 3, transformers 4.46": ("torch", ["sentence-transformers==3.3.1", "transformers==4.46.3"]),
    "the last that optimum-onnx takes": ("onnx", ["sentence-transformers[onnx]>=5.4,<6", "transformers<4.58"]),
}
PYTHON_READER = """
import json, sys
folder, backend, given = sys.argv[1:]
given = json.load(open(given, encoding="utf-8"))
if given["kind"] == "bi_encoder":
    from sentence_transformers import SentenceTransformer
    values = SentenceTransformer(folder, backend=backend, device="cpu").encode(given["texts"])
else:
    import torch
    from sentence_transformers import CrossEncoder
    model = CrossEncoder(folder, backend=backend, device="cpu")
    values = model.predict([tuple(pair) for pair in given["pairs"]], activation_fn=torch.nn.Identity())
json.dump(values.tolist(), open(sys.argv[3] + ".out", "w"))
"""
NODE_READER = """
import { AutoModel, AutoModelForSequenceClassification, AutoTokenizer, env, pipeline } from "@huggingface/transformers";
import fs from "node:fs";
import path from "node:path";
const [folder, given] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = path.dirname(folder);
const name = path.basename(folder);
const { kind, texts, pairs } = JSON.parse(fs.readFileSync(given, "utf8"));
const tokenizer = await AutoTokenizer.from_pretrained(name);
const made = [];
if (kind === "bi_encoder") {
  const extract = await pipeline("feature-extraction", name);
  const model = await AutoModel.from_pretrained(name);
  const together = await model(await tokenizer(texts, { padding: true, truncation: true }));
  made.push(together.sentence_embedding.tolist());
  made.push((await extract(texts, { pooling: "mean", normalize: true })).tolist());
} else {
  const model = await AutoModelForSequenceClassification.from_pretrained(name);
  const scores = [];
  for (const [query, document] of pairs)
    scores.push((await model(tokenizer(query, { text_pair: document, truncation: true }))).logits.tolist()[0][0]);
  made.push(scores);
}
fs.writeFileSync(given + ".out", JSON.stringify(made));
"""


def sentences(name, n):
    """The first sentences of a column of real pairs, else those that the models were made of."""
    path = ROOT.parent / "shared/data" / name
    if not path.is_file():
        return SENTENCES * (n // len(SENTENCES))
    return read_columns(str(path), ["sentence1"])["sentence1"][:n]


@pytest.fixture(scope="module")
def pairs():
    korean, english = sentences("korsts/korsts_dev.tsv.gz", 100), sentences("stsb_en/stsb_dev.tsv.gz", 100)
    return list(zip(korean + english, english + korean, strict=True))


@pytest.fixture(scope="module")
def models(tmp_path_factory, pairs):
    """Torch folders of both kinds and architectures, and an export of each: {(kind, tokenizer): (source, export)}."""
    made = {}
    for kind, tokenizer in product(("bi_encoder", "cross_encoder"), ("wordpiece", "unigram")):
        root = tmp_path_factory.mktemp(f"{kind}-{tokenizer}")
        source = build(root, kind, tokenizer, max_length=512)
        options = {"held_back": pairs[::10], "thresholds": Thresholds(), "n_threads": 1}
        export_model(source, root / "onnx", format="onnx", precision="fp32", **options)
        made[kind, tokenizer] = source, root / "onnx"
    return made


def asked(kind, pairs, folder):
    """Write what a reader is asked."""
    texts = [text for pair in pairs for text in pair]
    path = folder / "given.json"
    path.write_text(json.dumps({"kind": kind, "texts": texts, "pairs": pairs}), encoding="utf-8")
    return path


def expected(kind, source, pairs):
    scorer = load(source, runtime="torch")
    if kind == "bi_encoder":
        return scorer.encode([text for pair in pairs for text in pair])
    return scorer.score([left for left, _ in pairs], [right for _, right in pairs])


def ran(command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=900, **options)


@pytest.fixture(scope="module")
def python_with(tmp_path_factory):
    """Make an environment of these packages and give its interpreter."""

    def make(packages):
        folder = tmp_path_factory.mktemp("environment")
        assert ran([sys.executable, "-m", "venv", str(folder)]).returncode == 0
        for wanted in (["torch>=2.9,<2.14"], packages):
            done = ran([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *wanted])
            if done.returncode:
                pytest.skip(f"pip install {' '.join(wanted)}: {done.stderr[-300:]}")
        return folder / "bin/python"

    return make


@pytest.mark.parametrize("reader", OLD_READERS)
def test_earlier_releases_read_it(reader, models, pairs, python_with, tmp_path):
    backend, packages = OLD_READERS[reader]
    python = python_with(packages)
    for (kind, tokenizer), (source, export) in models.items():
        if kind == "cross_encoder" and backend == "torch":
            continue  # a CrossEncoder of modules is newer
        given = asked(kind, pairs, tmp_path)
        folder = source if backend == "torch" else export
        done = ran([str(python), "-c", PYTHON_READER, str(folder), backend, str(given)], env={"HF_HUB_OFFLINE": "1"})
        assert done.returncode == 0, f"{kind} {tokenizer}: {done.stderr[-2000:]}"
        values = np.array(json.loads((tmp_path / "given.json.out").read_text(encoding="utf-8")))
        np.testing.assert_allclose(values, expected(kind, source, pairs), atol=TOLERANCE)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """Install transformers.js and give the script that reads with it."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    done = ran(["npm", "install", "--ignore-scripts", "@huggingface/transformers"], cwd=folder)
    if done.returncode:
        pytest.skip(f"npm install @huggingface/transformers: {done.stderr[-300:]}")
    (folder / "read.mjs").write_text(NODE_READER, encoding="utf-8")
    return folder / "read.mjs"


def test_transformers_js_reads_its_layout(models, pairs, node, tmp_path):
    for (kind, tokenizer), (source, export) in models.items():
        folder = tmp_path / f"{kind}-{tokenizer}"
        write_layout(export, folder, tool="transformers.js")
        given = asked(kind, pairs, tmp_path)
        done = ran(["node", str(node), str(folder), str(given)], cwd=node.parent)
        assert done.returncode == 0, f"{kind} {tokenizer}: {done.stderr[-2000:]}"
        made = json.loads((tmp_path / "given.json.out").read_text(encoding="utf-8"))
        for values in made:
            np.testing.assert_allclose(values, expected(kind, source, pairs), atol=TOLERANCE)
