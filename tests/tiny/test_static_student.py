"""Static students and output dimensions, through the stages of a tiny run."""

from tests.conftest import BI_TEACHER


def test_smoke(tiny_run):
    from distill.benchmark import benchmark
    from students import export_static_student, train_student
    from teachers import cache_signals, train_teachers

    run = tiny_run(
        teachers={"bi": {**BI_TEACHER, "loss": "contrastive"}},
        student={
            "kind": "bi_encoder",
            "backbone": {"teacher": "bi"},
            "static": {},
            "dimensions": 16,
            "control": True,
            "training": {"learning_rate": 1e-2, "evaluations_per_epoch": 1},
            "layers": None,
        },
        objectives={"score_match": None, "embedding_match": {"teacher": "bi"}, "labels": {}, "matryoshka": [8, 4]},
        benchmark={"seconds": 0.2, "bootstrap": 50},
    )
    train_teachers(run)
    cache_signals(run)
    train_student(run)
    export_static_student(run)
    benchmark(run)
    import json

    print(json.dumps(json.loads((run.report / "benchmark.json").read_text())["rows"], indent=1)[:6000])
