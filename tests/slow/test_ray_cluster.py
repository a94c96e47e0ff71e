"""A cluster of this machine with two workers: the same results as one process, whoever is killed in the middle."""

import os
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from tests.conftest import BI_TEACHER, ROOT, make_run, train_teachers_once
from tests.static_model import Deadly, write_static_model

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # Ray's own warnings are not ours
ray = pytest.importorskip("ray", reason="ray is not installed here: pip install 'matchdistill[ray]'")

from distill.errors import BadInput, JobFailed  # noqa: E402
from distill.ray.actors import EmbedActor  # noqa: E402
from distill.ray.batches import RayJob  # noqa: E402
from distill.ray.cluster import Actors  # noqa: E402
from distill.ray.jobs import run_job  # noqa: E402
from distill.ray.reading import find_source  # noqa: E402
from distill.ray.shards import ShardFolder  # noqa: E402
from distill.ray.storage import place_at  # noqa: E402
from distill.runtime.opening import load  # noqa: E402

N_TEXTS, SHARD_ROWS = 20_000, 100
TWO = Actors(n=2)


@pytest.fixture(scope="module")
def cluster():
    """Two workers, which the jobs of this process share; at the priority of everything else, which Ray gives them none of."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Two files with texts of their own, one that stands in both, and one text twice."""
    folder = tmp_path_factory.mktemp("texts")
    told = [f"{number} 파이썬 백엔드 개발자 python backend engineer" for number in range(N_TEXTS)]
    for name, part in (("a", told[: N_TEXTS // 2]), ("b", [*told[N_TEXTS // 2 :], told[0], told[-1]])):
        pq.write_table(pa.table({"text": part}), folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A static model that tells the texts apart."""
    words = ["[UNK]", "python", "backend", *map(str, range(N_TEXTS))]
    return write_static_model(tmp_path_factory.mktemp("static") / "model", words)


def job_of(model, texts):
    source = find_source(str(texts), ["text"], None, section="--column")
    return RayJob(source, (model,), partial(EmbedActor, model), {}, SHARD_ROWS)


def check_rows(folder, model):
    """Each text once, with the vector that one process gives it."""
    table = pq.read_table(folder.place.path)
    found = table["text"].to_pylist()
    assert len(found) == len(set(found)) == N_TEXTS
    assert np.abs(np.array(table["embedding"].to_pylist()) - load(model).encode(found)).max() < 1e-6


def workers():
    return [
        one for one in psutil.process_iter() if one.name().startswith("ray::MapWorker") or "ShardActor" in one.name()
    ]


def test_two_actors_give_what_one_process_gives(cluster, texts, model, tmp_path):
    folder = ShardFolder(place_at(str(tmp_path / "out")))
    tally = run_job(job_of(model, texts), folder, TWO)
    check_rows(folder, model)
    assert (tally.counts["rows"], tally.counts["repeated"], len(tally.actors)) == (N_TEXTS + 2, 2, 2)
    again = run_job(job_of(model, texts), folder, TWO)
    assert (again.counts["computed"], again.counts["done_before"]) == (
        0,
        again.counts["rows"] - again.counts["repeated"],
    )


def test_an_actor_that_is_killed_loses_nothing(cluster, texts, model, tmp_path):
    folder, killed = ShardFolder(place_at(str(tmp_path / "out"))), []

    def kill():
        while len(folder.shards()) < 3:
            time.sleep(0.02)
        killed.append(workers()[0].pid)
        os.kill(killed[0], 9)

    threading.Thread(target=kill, daemon=True).start()
    tally = run_job(job_of(model, texts), folder, TWO)
    assert killed and any(name.endswith(f":{killed[0]}") for name in tally.actors) and len(tally.actors) == 3
    assert not tally.failed
    check_rows(folder, model)


def test_a_job_whose_driver_is_killed_goes_on(texts, model, tmp_path):
    folder = ShardFolder(place_at(str(tmp_path / "out")))
    command = [sys.executable, "-m", "recipes.cli", "embed", str(model), str(texts), "-o", folder.place.path]
    options = ["--engine", "ray", "--actors", "2", "--shard-rows", str(SHARD_ROWS)]  # each a cluster of its own
    driver = subprocess.Popen([*command, *options], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while len(folder.shards()) < 5:
        assert driver.poll() is None, driver.stderr.read()[-3000:]
        time.sleep(0.02)
    driver.kill()
    driver.communicate()
    n_before = len(folder.keys())
    assert 0 < n_before < N_TEXTS
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "were there already" in done.stderr
    check_rows(folder, model)


def test_a_batch_that_cannot_be_used_is_named_and_all_others_are_written(cluster, model, tmp_path):
    (tmp_path / "texts").mkdir()
    for name, values in (("a", ["one", "two"]), ("b", ["three", None])):
        pq.write_table(pa.table({"text": pa.array(values, pa.string())}), tmp_path / "texts" / f"{name}.parquet")
    source = find_source(str(tmp_path / "texts"), ["text"], None, section="--column")
    folder = ShardFolder(place_at(str(tmp_path / "out")))
    job = RayJob(source, (model,), partial(EmbedActor, model), {}, shard_rows=2)
    with pytest.raises(
        BadInput, match=r"1 batch of 2 rows failed \(.*b.parquet: 1 row cannot be used .*row 2: text is empty"
    ):
        run_job(job, folder, TWO)
    assert len(folder.keys()) == 2


def test_signals_by_ray_are_those_of_one_process_and_teach_the_same(cluster, tmp_path, monkeypatch):
    from students import train_student
    from teachers import cache_signals

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as many as an actor has: sums of two threads differ in the last bit
    runs = []
    for name, actors in (("one", None), ("ray", TWO)):
        run = make_run(
            tmp_path / name,
            teachers={"bi": BI_TEACHER},
            objectives={"score_match": {"teacher": "cross", "loss": "bce"}},
            signals={"shard_size": 16},
        )
        train_teachers_once(run)
        cache_signals(run, actors)
        train_student(run)
        runs.append(run)
    shards = [sorted(path.name for path in run.signals("cross").rglob("*.arrow")) for run in runs]
    assert shards[0] == shards[1] and len(shards[0]) > 3, "names hold a checksum: they are the same bytes"
    weights = [load_file(run.student / "model.safetensors") for run in runs]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_batch_that_ends_every_process_is_given_up_and_named(cluster, model, tmp_path):
    (tmp_path / "texts").mkdir()
    for name, values in (("a", ["one", "two"]), ("b", ["deadly", "four"]), ("c", ["five"])):
        pq.write_table(pa.table({"text": values}), tmp_path / "texts" / f"{name}.parquet")
    source = find_source(str(tmp_path / "texts"), ["text"], None, section="--column")
    folder = ShardFolder(place_at(str(tmp_path / "out")))
    job = RayJob(source, (model,), partial(Deadly, model), {}, shard_rows=2)
    with pytest.raises(JobFailed, match=r"1 batch of 2 rows failed \(shard-.*: 3 processes ended while"):
        run_job(job, folder, TWO)
    assert len(folder.keys()) == 3


def test_actors_work_in_a_dataset_of_ones_own(cluster, model):
    import ray.data

    given = ray.data.from_items([{"id": number, "text": f"{number} python"} for number in range(50)])
    strategy = ray.data.ActorPoolStrategy(size=1)
    rows = given.map_batches(EmbedActor, fn_constructor_args=[model], num_cpus=1, compute=strategy).take_all()
    vectors = load(model).encode([row["text"] for row in rows])
    assert np.array_equal(np.stack([row["embedding"] for row in rows]), vectors)
