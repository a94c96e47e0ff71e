"""`distill verify`: what is whole is called whole, and every planted damage is found and named."""

import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pytest

from distill.errors import BadInput
from distill.files.artefact import read_card
from distill.signals import SignalCache
from distill.verify import verify
from recipes.cli import main
from students import export_student, train_student
from teachers import cache_signals, train_teachers
from tests.conftest import make_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with a teacher, its signals, a student, a control and an export."""
    run = make_run(
        tmp_path_factory.mktemp("verify") / "run",
        student={"control": {"loss": "bce"}},
        training={"max_steps": 2},
        signals={"allow_unrelated": True},
        export={"precisions": ["fp32"], "parity_pairs": 20},
    )
    run.write_recipe()
    for stage in (train_teachers, cache_signals, train_student, export_student):
        stage(run)
    return run


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished.folder, tmp_path / "run", symlinks=True)


def said(folder, state):
    return {verdict.place: verdict.line for verdict in verify(folder) if verdict.state == state}


def test_what_is_whole(finished, capsys):
    assert said(finished.folder, "broken") == {}
    whole = said(finished.folder, "ok")
    assert {"built", "student", "control", "teachers/cross", "exports/openvino-fp32"} <= set(whole)
    assert whole["student"].endswith(read_card(finished.student).revision)
    [signals] = [line for place, line in whole.items() if place.startswith("signals/cross/")]
    n = SignalCache(finished.signals("cross"), finished.signal_identity("cross")).count("scores")
    assert signals == f"{n} scores of revision {read_card(finished.teacher('cross')).revision}"
    assert main(["verify", str(finished.folder)]) == 0
    assert "ok      student" in capsys.readouterr().out
    assert main(["verify", str(finished.student), "--json"]) == 0
    assert [verdict["state"] for verdict in json.loads(capsys.readouterr().out)] == ["ok"]


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def edit(path, change):
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def damage_weights(run):
    flip(run / "student" / "model.safetensors", -1)


def lose_a_tokenizer(run):
    (run / "exports" / "openvino-fp32" / "tokenizer.json").unlink()


def damage_a_graph(run):
    flip(run / "exports" / "openvino-fp32" / "openvino" / "openvino_model.bin", -1)


def change_a_card(run):
    edit(run / "student" / "artefact.json", lambda card: card["details"]["inputs"].update(seed=7))


def tear_a_card(run):
    path = run / "built" / "artefact.json"
    path.write_text(path.read_text(encoding="utf-8")[:100], encoding="utf-8")


def replace_the_teacher(run):
    edit(run / "student" / "artefact.json", lambda card: card["parents"].update(cross="0123456789abcdef"))


def shard_of(run):
    return next(run.glob("signals/cross/*/scores-*.arrow"))


def damage_a_shard(run):
    flip(shard_of(run), 200)


def lose_a_shard(run):
    shard_of(run).unlink()


def write_nan(run):
    path = shard_of(run)
    table = pa.ipc.open_file(str(path)).read_all()
    values = pa.array([float("nan"), *table["value"].to_pylist()[1:]], type=table["value"].type)
    keys = table["key"].combine_chunks().to_pylist()
    path.unlink()
    cache = SignalCache(path.parents[1], identity_of(path.parent))
    cache.write(
        "scores", np.frombuffer(b"".join(keys), dtype=np.uint64).reshape(-1, 2), values.to_numpy(zero_copy_only=False)
    )


def identity_of(folder):
    from distill.verify import _identity

    return _identity(folder, json.loads((folder / "manifest.json").read_text(encoding="utf-8")))


def rename_a_cache(run):
    shard_of(run).parent.rename(shard_of(run).parent.with_name("0123456789abcdef"))


def make_a_circle(run):
    (run / "student" / "loop").symlink_to("loop")


def other_inputs(run):
    edit(run / "built" / "artefact.json", lambda card: card["details"].update(inputs=-1))


def other_items(run):
    edit(shard_of(run).parent / "manifest.json", lambda manifest: manifest.update(items=["scores"]))


def other_stages(run):
    edit(run / "recipe.json", lambda recipe: recipe.update(stages={"a": "x"}))


def a_folder_for_the_recipe(run):
    (run / "recipe.json").unlink()
    (run / "recipe.json").mkdir()


def tear_the_recipe(run):
    (run / "recipe.json").write_text("{", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "place", "line"),
    [
        (damage_weights, "student", "its files are not those that were written"),
        (lose_a_tokenizer, "exports/openvino-fp32", "is missing"),
        (damage_a_graph, "exports/openvino-fp32", "its files are not those that were written"),
        (change_a_card, "student", "the inputs that it states do not have its fingerprint"),
        (tear_a_card, "built", "is not a card of this toolkit"),
        (replace_the_teacher, "student", "it was made from cross at revision 0123456789abcdef, which is"),
        (damage_a_shard, "signals/cross", "is damaged (its checksum is another)"),
        (lose_a_shard, "signals/cross", "scores are gone"),
        (write_nan, "signals/cross", "1 values are NaN or infinite"),
        (rename_a_cache, "signals/cross", "not that of the folder"),
        (tear_the_recipe, "recipe.json", "recipe.json"),
        (make_a_circle, "student", "loop"),
        (other_inputs, "built", "the inputs that it states do not have its fingerprint"),
        (other_items, "signals/cross", "its JSON is not what this toolkit writes"),
        (other_stages, "recipe.json", "its JSON is not what this toolkit writes"),
        (a_folder_for_the_recipe, "recipe.json", "recipe.json"),
    ],
)
def test_what_is_damaged_is_named(copied, capsys, damage, place, line):
    damage(copied)
    broken = said(copied, "broken")
    assert len(broken) == 1
    [(found, says)] = broken.items()
    assert found.startswith(place) and line in says
    assert main(["verify", str(copied)]) == 1
    assert capsys.readouterr().err.strip() == f"error: 1 place of {copied} is not what was made"


def test_what_is_worth_knowing(copied):
    edit(copied / "recipe.json", lambda recipe: recipe["student"]["training"].update(epochs=9.0))
    (copied / ".work" / "student-0123456789abcdef").mkdir(parents=True)
    (copied / ".work" / "student-0123456789abcdef" / "state").write_bytes(b"0" * 2_000_000)
    (copied / ".student.1.tmp").mkdir()
    (copied / "student" / ".4711.tmp.scores.csv").write_bytes(b"0" * 1_000_000)
    manifest = next(copied.glob("signals/cross/*/manifest.json"))
    manifest.unlink()
    notes = said(copied, "note")
    assert "recipe.json is another now (student.training.epochs: 1.0 → 9.0)" in notes["student"]
    assert notes[".work/student-0123456789abcdef"] == "left by unfinished work, 2.0 MB"
    assert notes["student/.4711.tmp.scores.csv"] == "left by unfinished work, 1.0 MB"
    assert ".student.1.tmp" in notes
    assert "labelling has not come to its end" in notes[str(manifest.parent.relative_to(copied))]
    assert said(copied, "broken") == {}


def test_what_a_stranger_wrote_stays_in_its_line(copied, capsys):
    edit(copied / "student" / "artefact.json", lambda card: card.update(stage="a\x1b[31m\nok   forged"))
    edit(copied / "control" / "artefact.json", lambda card: card["parents"].update({"../../elsewhere": "aaaa"}))
    shutil.copytree(copied / "built", copied.parent / "elsewhere")
    main(["verify", str(copied)])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "\nok   forged" not in printed and "a\\x1b[31m\\nok   forged" in printed
    assert "control" in said(copied, "ok")  # what lies outside of the run is no parent


def test_shards_without_a_checksum_and_no_recipe_are_said(copied):
    shard = shard_of(copied)
    shard.rename(shard.with_name("scores-0123456789abcdef.arrow"))
    (copied / "recipe.json").unlink()
    notes = said(copied, "note")
    assert "no checksum in the name of 1 shard" in notes[str(shard.parent.relative_to(copied))]
    assert "it is missing" in notes["recipe.json"]


def test_many_bytes_are_counted_while_they_are_read(finished, capsys, monkeypatch):
    assert main(["verify", str(finished.folder)]) == 0
    assert capsys.readouterr().err == ""  # a moment's work
    monkeypatch.setattr("distill.progress._SHOWN_FROM_BYTES", 0)
    monkeypatch.setattr("distill.progress._MB", 1000)
    assert main(["verify", str(finished.folder)]) == 0
    said = capsys.readouterr().err
    [(done, total)] = re.findall(r"^verify: MB  (\d+)/(\d+) ", said, re.MULTILINE)
    assert done == total and int(total) > 100


def test_a_folder_of_runs_is_not_taken_for_one(copied, capsys):
    assert main(["verify", str(copied.parent)]) == 2
    assert "holds the runs run; name one of them" in capsys.readouterr().err


def test_a_trimmed_model_is_whole(finished, tmp_path, capsys):
    texts, target = tmp_path / "texts.txt", tmp_path / "trimmed"
    texts.write_text("백엔드 개발자\nbackend engineer\n", encoding="utf-8")
    student = shutil.copytree(finished.student, tmp_path / "student")
    (student / "README.md").write_text("its report\n")
    assert main(["trim", str(student), str(target), "--texts", str(texts)]) == 0
    assert f"Not taken over from {student}: README.md. They describe the model" in capsys.readouterr().out
    assert main(["trim", str(finished.export("fp32")), str(tmp_path / "graph"), "--texts", str(texts)]) == 2
    assert "is an export for openvino, which has no weights to cut; trim the student" in capsys.readouterr().err
    assert main(["verify", str(target)]) == 0
    assert "broken" not in capsys.readouterr().out


def test_no_folder_of_this_toolkit(tmp_path, capsys):
    with pytest.raises(BadInput, match="holds no artefact.json and no signals"):
        verify(tmp_path)
    assert main(["verify", str(tmp_path / "none")]) == 2
    assert "is no folder; name a run's folder" in capsys.readouterr().err
