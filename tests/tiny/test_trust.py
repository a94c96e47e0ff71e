"""A model folder from anywhere: what it may not say, and whom nobody is asked for it."""

import ast
import json
import os
import shutil
import socket
import threading

import pytest

from distill.errors import BadInput, JobFailed
from distill.files.artefact import check_model_folder
from distill.models.modeling import build_model
from distill.runtime.opening import load
from distill.scorers.opening import open_scorer
from distill.signals import Identity, SignalCache, text_keys
from students.export.layouts import write_layout
from tests.conftest import ROOT
from tests.tiny.conftest import build


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trust")
    build(folder, "bi_encoder", "wordpiece")
    return folder / "model"


@pytest.fixture
def model(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def test_a_backbone_without_its_modules_is_no_backbone(model):
    (model / "modules.json").unlink()
    with pytest.raises(BadInput, match=r"modules\.json is missing"):
        build_model("bi_encoder", model, max_length=32)


def edit(path, change):
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


class TestFolder:
    @pytest.mark.parametrize("path", ["/etc", "../x", "a/../../x", "~", "a\0b", 3, None])
    def test_paths_stay_inside(self, model, path):
        edit(model / "modules.json", lambda value: value[1].update(path=path))
        with pytest.raises(BadInput, match="within"):
            load(model)

    @pytest.mark.parametrize(
        "kind",
        [
            "os.system",
            "custom.Pooling",
            "sentence_transformers.util.http_get",
            "sentence_transformers.evil.os.system",
            "sentence_transformers.models.WordEmbeddings",
            "",
        ],
    )
    def test_modules_are_of_known_kinds(self, model, kind):
        edit(model / "modules.json", lambda value: value[1].update(type=kind))
        for use in (load, check_model_folder, lambda folder: build_model("bi_encoder", folder, max_length=64)):
            with pytest.raises(BadInput, match="is not run here"):
                use(model)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"num_hidden_layers": 10**9}, r"num_hidden_layers is 1000000000; no model has more than 1,000$"),
            ({"num_labels": 10**9}, "num_labels is 1000000000; no model has more than 1,000,000$"),
            ({"text_config": {"n_layer": 2000}}, r"text_config\.n_layer is 2000"),
        ],
    )
    def test_no_model_has_so_many_parts(self, model, change, says):
        edit(model / "config.json", lambda value: value.update(change))
        for use in (load, check_model_folder, lambda folder: build_model("bi_encoder", folder, max_length=64)):
            with pytest.raises(BadInput, match=says):
                use(model)

    def test_a_card_is_a_file(self, model):
        (model / "artefact.json").unlink(missing_ok=True)
        (model / "artefact.json").mkdir()
        with pytest.raises(BadInput, match="artefact.json is no file"):
            load(model)

    @pytest.mark.parametrize("content", [b"", b"\0" * 500, b"node { }", None])
    def test_a_damaged_graph_is_named(self, model, content, capfd):
        (model / "openvino").mkdir()
        path = model / "openvino" / "openvino_model.xml"
        path.write_bytes(b'<?xml version="1.0"?><net name="x"></net>' if content is None else content)
        says = "openvino_model.bin is missing" if content is None else "openvino_model.xml is no graph of OpenVINO"
        with pytest.raises(BadInput, match=says):
            load(model, runtime="openvino")
        assert capfd.readouterr().err == ""

    def test_activations_are_torchs(self, model):
        (model / "3_Dense").mkdir()
        (model / "3_Dense" / "config.json").write_text('{"activation_function": "os.system"}')
        edit(
            model / "modules.json",
            lambda value: value.append({"path": "3_Dense", "type": "sentence_transformers.models.Dense"}),
        )
        with pytest.raises(BadInput, match="one of torch.nn is expected"):
            check_model_folder(model)

    def test_numbers_of_layers_are_limited_in_every_module(self, model):
        (model / "3_LSTM").mkdir()
        (model / "3_LSTM" / "lstm_config.json").write_text('{"word_embedding_dimension": 64, "num_layers": 30000}')
        entry = {"path": "3_LSTM", "type": "sentence_transformers.models.LSTM"}
        edit(model / "modules.json", lambda value: value.append(entry))
        with pytest.raises(BadInput, match=r"lstm_config\.json: num_layers is 30000; no model has more than 1,000"):
            load(model)

    @pytest.mark.parametrize("target", ["/etc/passwd", "../outside"])
    def test_links_stay_inside(self, model, target):
        (model.parent / "outside").write_text("secret")
        (model / "notes").symlink_to(target)
        with pytest.raises(BadInput, match="is a link out of the folder"):
            load(model)

    def test_links_to_folders_are_refused_because_nothing_checks_what_is_in_them(self, model, tmp_path):
        (model / ".git").mkdir()
        (model / "1_Pooling").rename(model / ".git" / "pooling")
        (model / "1_Pooling").symlink_to(".git/pooling")
        with pytest.raises(BadInput, match="1_Pooling is a link to a folder"):
            load(model)

    def test_links_in_a_circle_are_refused(self, model):
        (model / "a").symlink_to("b")
        (model / "b").symlink_to("a")
        with pytest.raises(BadInput, match="cannot be read .*; copy the folder again"):
            load(model)

    def test_a_snapshot_of_the_hubs_cache_is_links(self, model, tmp_path):
        blobs, snapshot = (
            tmp_path / "hub" / "models--a--b" / "blobs",
            tmp_path / "hub" / "models--a--b" / "snapshots" / "abc",
        )
        blobs.mkdir(parents=True)
        for path in sorted(path for path in model.rglob("*") if path.is_file()):
            blob = blobs / f"{len(list(blobs.iterdir()))}"
            shutil.copyfile(path, blob)
            link = snapshot / path.relative_to(model)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
        assert load(snapshot).encode(["a"]).shape == (1, 64)

    def test_a_hidden_module_is_refused_because_nothing_checks_it(self, model, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (model / ".pooling").symlink_to(tmp_path / "elsewhere")
        edit(model / "modules.json", lambda modules: modules[1].update(path=".pooling"))
        for use in (load, check_model_folder, lambda folder: build_model("bi_encoder", folder, max_length=64)):
            with pytest.raises(BadInput, match=r"module 1: path is '\.pooling', which is hidden"):
                use(model)

    def test_a_pipe_is_refused_and_never_read(self, model):
        os.mkfifo(model / "notes")
        for use in (load, check_model_folder, lambda folder: build_model("bi_encoder", folder, max_length=64)):
            with pytest.raises(BadInput, match="neither a file nor a folder"):
                use(model)

    def test_a_pickle_is_refused(self, model):
        (model / "model.safetensors").rename(model / "pytorch_model.bin")
        with pytest.raises(BadInput, match="is a pickle, which can run code"):
            load(model)

    def test_shards_stay_inside(self, model):
        (model / "model.safetensors").unlink()
        (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../x"}}')
        with pytest.raises(BadInput, match="leads out of the folder"):
            load(model)

    @pytest.mark.parametrize(
        "settings",
        [
            {"model_args": {"trust_remote_code": True}},
            {"tokenizer_name_or_path": "evil/model"},
            {"model_args": {"file_name": "../x"}},
            {"model_args": {"ov_config": {"CACHE_DIR": "openvino"}}},
        ],
    )
    def test_settings_ask_for_nothing_elsewhere(self, model, settings):
        edit(model / "sentence_bert_config.json", lambda value: value.update(settings))
        with pytest.raises(BadInput, match=r"sentence_bert_config\.json"):
            load(model)

    def test_code_of_its_own_never_runs(self, model, monkeypatch):
        (model / "evil.py").write_text(f"open({str(model / 'ran')!r}, 'w')")
        edit(
            model / "config.json",
            lambda value: value.update(model_type="evil", auto_map={"AutoConfig": "evil.E", "AutoModel": "evil.E"}),
        )
        monkeypatch.setattr("builtins.input", lambda *_: "y")  # who is asked says yes
        for use in (
            load,
            lambda folder: build_model("bi_encoder", folder, max_length=64),
            lambda folder: build_model("bi_encoder", folder, pooling="cls", max_length=64),
        ):
            with pytest.raises(BadInput, match="asks to run code of its own"):
                use(model)
        assert not (model / "ran").exists()

    def test_ids_beyond_the_table_are_refused(self, model):
        edit(
            model / "tokenizer.json",
            lambda value: value["model"]["vocab"].update(
                {piece: n + 9000 for piece, n in value["model"]["vocab"].items() if not piece.startswith("[")}
            ),
        )
        with pytest.raises(BadInput, match="its table of embeddings has"):
            load(model).encode(["개발자 nurse"])


def test_every_auto_class_is_told_not_to_run_code():
    """Whatever asks by default runs on "y": the one helper is used, or the constant is given."""
    for package in ("distill", "students", "teachers"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                called = ast.unparse(node.func)
                loads = (called.endswith(".from_pretrained") and "Auto" in called) or called in (
                    "auto_class.from_pretrained",
                    "Transformer",
                    "Transformer.load",
                )
                loads |= called in ("SentenceTransformer", "CrossEncoder") and bool(node.args)
                assert not loads or "NO_CODE" in ast.unparse(node), f"{path}:{node.lineno}"


@pytest.fixture
def server():
    """A host that notes who asks and answers without end."""
    listening, asked = socket.create_server(("127.0.0.1", 0)), []

    def serve(connection):
        asked.append(connection.recv(65536))
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
            for _ in range(2048):
                connection.sendall(b" " * (1 << 20))
        except OSError:
            pass
        connection.close()

    def accept():
        try:
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
        except OSError:
            pass

    threading.Thread(target=accept, daemon=True).start()
    yield listening.getsockname()[1], asked
    listening.close()


class TestRemote:
    def folder(self, tmp_path, port, endpoint=(), **settings):
        folder = tmp_path / "downloaded"
        folder.mkdir()
        stated = {
            "model": "m",
            "base_url": f"http://127.0.0.1:{port}/v1",
            "input_price": 0,
            "output_price": 0,
            **dict(endpoint),
        }
        (folder / "scorer.json").write_text(json.dumps({"kind": "remote", "endpoint": stated, **settings}))
        return folder

    @pytest.mark.parametrize("allowed", [(), ("api.openai.com",), ("127.0.0.1:1",)])
    def test_a_host_that_is_not_named_is_not_asked(self, tmp_path, server, allowed):
        port, asked = server
        with pytest.raises(BadInput, match=f"would send every text to 127.0.0.1:{port}; allow it with --allow-host"):
            open_scorer(self.folder(tmp_path, port), allow_hosts=allowed)
        assert asked == []

    def test_a_secret_that_is_not_named_is_not_sent(self, tmp_path, server):
        folder = self.folder(tmp_path, server[0], {"key_variable": "AWS_SECRET_ACCESS_KEY"})
        with pytest.raises(BadInput, match="--key-variable AWS_SECRET_ACCESS_KEY where that is meant"):
            open_scorer(folder, allow_hosts=["127.0.0.1"])
        assert open_scorer(folder, allow_hosts=["127.0.0.1"], key_variable="AWS_SECRET_ACCESS_KEY").kind == "remote"

    def test_an_endless_answer_ends_and_nothing_is_written_elsewhere(self, tmp_path, server, monkeypatch):
        monkeypatch.setenv("MATCHDISTILL_CACHE", str(tmp_path / "cache"))
        folder = self.folder(tmp_path, server[0], cache=str(tmp_path / "stolen"))
        with pytest.raises(JobFailed, match="sends more than 64 MiB, which is no answer"):
            open_scorer(folder, allow_hosts=["127.0.0.1"]).score(["a"], ["b"])
        assert len(server[1]) == 1 and sorted(os.listdir(tmp_path)) == ["cache", "downloaded"]


class TestSignals:
    def test_flipped_bits_are_refused_by_name(self, tmp_path):
        import numpy as np

        identity, keys = Identity("r", "bi_encoder", 8), text_keys(["a", "b", "c"])
        SignalCache(tmp_path, identity).write("embeddings", keys, np.ones((3, 4)))
        path = next(tmp_path.rglob("*.arrow"))
        content = path.read_bytes()
        for place in range(0, len(content), 37):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(
                BadInput, match=f"{path.name} is damaged.*remove it and run `distill cache-signals` again"
            ):
                SignalCache(tmp_path, identity).find("embeddings", keys, "embeddings")
        path.write_bytes(content)
        assert len(SignalCache(tmp_path, identity).find("embeddings", keys, "embeddings")) == 3
        path.rename(path.with_name("embeddings-0123456789abcdef.arrow"))  # of a release without checksums
        assert len(SignalCache(tmp_path, identity).find("embeddings", keys, "embeddings")) == 3


@pytest.mark.parametrize("place", ["model", "model/inside", "mine", "link"])
def test_a_layout_never_takes_the_place_of_anything(model, tmp_path, place):
    (model / "onnx").mkdir()
    (model / "onnx" / "model.onnx").write_bytes(b"x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(BadInput, match="input of this command|holds other files|is a link"):
        write_layout(model, tmp_path / place, tool="fastembed")
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_folder_without_a_tokenizer_is_refused(bert_bi, tmp_path):
    """transformers would make an empty tokenizer, to which every word is unknown."""
    folder = shutil.copytree(bert_bi, tmp_path / "model")
    for name in ("modules.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(
        folder / "1_Pooling"
    )  # a folder of transformers, not one of sentence-transformers with a piece missing
    with pytest.raises(BadInput, match="has no tokenizer"):
        build_model("bi_encoder", str(folder), max_length=64)
