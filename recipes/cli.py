"""The `distill` command: the stages of a recipe, and scoring and embedding with any finished model.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

import math
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from recipes import _stages
from recipes._arguments import refuse_empty_arguments, refuse_unread
from recipes._help import with_help_of_arguments
from recipes._launch import guarded, join_processes, launch, set_up_messages

__all__ = ["command", "main"]

app = typer.Typer(
    help="Distil large text-matching models into small ones that run in int8 on a CPU, and report what was lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_MOST = 1_000_000  # of tokens, and of seconds: what is more is a slip


def _finite(value: float | None) -> float | None:
    """Refuse what is no number, and what is endless: click's own bounds let NaN through."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number.")
    return value


RecipePath = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE.yaml", help="The recipe: a file, or the name of one that comes with the toolkit, as quickstart."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe, such as training.learning_rate=1.0e-4."),
]
QueryColumn = Annotated[str, typer.Option(help="Column of the queries.")]
DocumentColumn = Annotated[str, typer.Option(help="Column of the documents.")]
LabelColumn = Annotated[str, typer.Option(help="Column of the labels.")]
LabelRange = Annotated[str, typer.Option(help="Least and greatest label, such as 0,5.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        help="torch, openvino, onnx or numpy; default: the folder's graph, else torch (a static model: numpy)."
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(help="fp32, bf16, or auto (the export that is fastest on this machine); default: the runtime's own."),
]
Threads = Annotated[
    int | None, typer.Option(min=1, max=4096, help="Number of threads; default: every CPU that this process may use.")
]
MaxLength = Annotated[
    int | None,
    typer.Option(min=3, max=_MOST, help="Longer texts are cut to this many tokens; default: the model's own limit."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]
AsText = Annotated[
    bool,
    typer.Option(
        "--special-tokens-as-text",
        help='Read "[SEP]" or "</s>" in a text as text; default: as the special token, as stock sentence-transformers does.',
    ),
]


Engine = Annotated[
    str | None,
    typer.Option(help="ray: on a Ray cluster, into a folder of Parquet shards; default: this process."),
]
NumberOfActors = Annotated[
    int | None,
    typer.Option(
        "--actors", min=1, max=_MOST, help="Processes with a model each, on Ray; default: as many as it holds."
    ),
]
ActorCpus = Annotated[
    float | None,
    typer.Option(min=0.01, max=4096, callback=_finite, help="CPUs of each actor, which are its threads; default: 1."),
]
ActorGpus = Annotated[
    float | None, typer.Option(min=0, max=64, callback=_finite, help="GPUs of each actor; default: none.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="The cluster, such as auto or ray://host:10001; default: RAY_ADDRESS, else this machine alone."),
]
Keep = Annotated[
    str | None,
    typer.Option(help="Columns of the input that stand beside the results on Ray, such as id,url; default: the texts."),
]
ShardRows = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=_MOST,
        help="Rows of a batch and of its shard on Ray, which is tried again as a whole; default: 8192.",
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from distill import __version__

        print(f"matchdistill {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Distil large text-matching models into small ones that run in int8 on a CPU, and report what was lost."""


@app.command()
def run(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Run all stages of a recipe. Finished stages are skipped and an interrupted one continues."""
    launch(recipe, overrides or [], _stages.every_stage)
    _print_report(recipe, overrides, as_json)


@app.command()
def train_teacher(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Train the recipe's teachers."""
    launch(recipe, overrides or [], _stages.train_teacher)


@app.command()
def cache_signals(
    recipe: RecipePath,
    overrides: Overrides = None,
    engine: Engine = None,
    actors: NumberOfActors = None,
    actor_cpus: ActorCpus = None,
    actor_gpus: ActorGpus = None,
    ray_address: RayAddress = None,
) -> None:
    """Compute and store the teachers' scores and embeddings of the training pairs."""
    from recipes.options import ray_options

    ray_settings = {"actors": actors, "actor_cpus": actor_cpus, "actor_gpus": actor_gpus, "ray_address": ray_address}
    ray = ray_options(engine, ray_settings)
    launch(recipe, overrides or [], _stages.cache_signals if ray is None else _stages.cache_signals_on(ray.actors))


@app.command()
def build_student(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Build the untrained student: copy its backbone and cut it as the recipe says."""
    launch(recipe, overrides or [], _stages.build_student)


@app.command()
def train_student(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Train the student and its control."""
    launch(recipe, overrides or [], _stages.train_student)


@app.command()
def export(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Export the student to OpenVINO or ONNX in fp32 and int8, and compare each export with torch."""
    launch(recipe, overrides or [], _stages.export)
    _print_parity(recipe, overrides, as_json)


@app.command()
def benchmark(
    context: typer.Context,
    targets: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE.yaml [KEY=VALUE]... | MODEL...", help="A recipe, or model folders to compare."),
    ],
    as_json: AsJson = False,
    pairs: Annotated[str | None, typer.Option(help="Labelled pairs to measure model folders on.")] = None,
    query_column: QueryColumn = "query",
    document_column: DocumentColumn = "document",
    label_column: LabelColumn = "label",
    label_range: LabelRange = "0,1",
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the report, if model folders are compared.")
    ] = Path("report"),
    seconds: Annotated[
        float,
        typer.Option(min=0.1, max=_MOST, callback=_finite, help="Measuring time per model and kind of measurement."),
    ] = 10.0,
    threads: Annotated[
        str, typer.Option(help="Numbers of threads, such as 1,2; default: every CPU that this process may use.")
    ] = "",
    batches: Annotated[str, typer.Option(help="Batch sizes to time on each length, such as 1,8,32.")] = "",
    loads: Annotated[
        str, typer.Option(help="Arrival rates to serve, as shares of the measured capacity, such as 0.25,0.5,0.75,0.9.")
    ] = "",
    shapes: Annotated[
        int, typer.Option(min=0, max=_MOST, help="Number of random input shapes for measuring how memory grows.")
    ] = 0,
    against: Annotated[Path | None, typer.Option(help="An earlier benchmark.json to compare with.")] = None,
    max_slowdown: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            callback=_finite,
            help="With --against: the largest accepted slowdown of latency and throughput, such as 1.10.",
        ),
    ] = None,
    max_metric_drop: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            callback=_finite,
            help="With --against: the largest accepted loss of the primary metric, such as 0.005.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure the models of a recipe's run, or any model folders, and write the report."""
    from distill.recipe.reading import packaged_recipe

    is_named = packaged_recipe(targets[0]) is not None and not Path(targets[0]).exists()
    if is_named or targets[0].endswith((".yaml", ".yml")):
        why = "is for model folders, and not read with a recipe; name folders of its run"
        refuse_unread(context, why, all_but=("targets", "as_json"))
        launch(targets[0], targets[1:], _stages.benchmark)
        _print_report(targets[0], targets[1:], as_json)
        return
    from recipes.commands import Earlier, FolderMeasurement, bench
    from recipes.options import LabelledFile, OutputPlace

    bench(
        targets,
        None if pairs is None else LabelledFile(pairs, query_column, document_column, label_column, label_range),
        OutputPlace(str(output), overwrite),
        measurement=FolderMeasurement(seconds, threads, batches, loads, shapes),
        earlier=Earlier(against, max_slowdown, max_metric_drop),
        as_json=as_json,
    )


@app.command()
def cascade(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Score with the student, send unsure pairs to the teacher; report cost and quality."""
    launch(recipe, overrides or [], _stages.cascade)
    from distill.recipe.reading import load_recipe
    from recipes.printing import print_dial

    print_dial(load_recipe(recipe, overrides or []).folder, as_json=as_json)


@app.command()
def doctor(
    recipe: RecipePath,
    overrides: Overrides = None,
    pairs: Annotated[
        int, typer.Option(min=50, max=_MOST, help="Number of validation pairs that each teacher scores.")
    ] = 300,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="A folder for doctor.json, suspects.tsv and disagreement.tsv; default: nothing is written.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Say whether a student can learn from a recipe's pairs, teachers and cached signals; exit code 1 if it cannot."""
    from distill.recipe.reading import load_recipe
    from recipes.commands import examine
    from recipes.options import OutputPlace

    written = None if output is None else OutputPlace(str(output), overwrite)
    examine(load_recipe(recipe, overrides or []), pairs, written, as_json=as_json)


@app.command()
def evaluate(
    models: Annotated[list[Path], typer.Argument(help="Model folders, or a run's folder for all of its models.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder of the results, in MTEB's own JSON.")],
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks", help='A task or benchmark of MTEB, such as KorSTS or "MTEB(kor, v2)"; may be repeated.'
        ),
    ] = None,
    recipe: Annotated[
        list[str] | None, typer.Option("--recipe", help="A recipe whose evaluation pairs are a task; may be repeated.")
    ] = None,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    max_length: MaxLength = None,
    card: Annotated[
        bool,
        typer.Option("--card", help="Store the scores beside each model (boards.json) and in its card (README.md)."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run models on tasks of MTEB, and on a recipe's evaluation pairs in the same format; a finished task is not run again."""
    from recipes.commands import Boards, evaluate_models
    from recipes.options import OpeningOptions

    opening = OpeningOptions(runtime, precision, threads, max_length)
    evaluate_models(models, Boards(tasks or (), recipe or ()), output, opening=opening, card=card, as_json=as_json)


@app.command()
def verify(
    folder: Annotated[
        Path, typer.Argument(help="A run's folder, such as runs/quickstart, or a model folder made here.")
    ],
    as_json: AsJson = False,
) -> None:
    """Check every artefact, cached signal and report against its hashes, parents and recipe; exit code 1 if one is broken."""
    from recipes.commands import verify_folder

    verify_folder(folder, as_json=as_json)


@app.command()
def mine(
    context: typer.Context,
    pairs: Annotated[str, typer.Argument(help="A .csv, .tsv, .jsonl or .parquet file (or hub dataset) of pairs.")],
    output: Annotated[
        Path,
        typer.Argument(help="A folder for pairs.jsonl and card.json. The same command continues where it stopped."),
    ],
    query_column: QueryColumn = "query",
    document_column: DocumentColumn = "document",
    label_column: LabelColumn = "label",
    all_positive: Annotated[
        bool, typer.Option("--all-positive", help="Read no labels: every given pair is a positive.")
    ] = False,
    label_range: LabelRange = "0,1",
    positive_from: Annotated[
        float,
        typer.Option(min=0, max=1, callback=_finite, help="Least label, mapped to [0, 1], of a positive."),
    ] = 0.5,
    documents: Annotated[
        str | None, typer.Option(help="A file of more documents to choose from, beside those of the pairs.")
    ] = None,
    column: Annotated[str, typer.Option(help="Column of the texts in --documents, if it is a table.")] = "text",
    retriever: Annotated[str, typer.Option(help="What finds candidates: bm25, or a bi-encoder's folder.")] = "bm25",
    teacher: Annotated[
        Path | None,
        typer.Option(help="A model folder that scores candidates; default: the retriever, if it is a model."),
    ] = None,
    terms: Annotated[
        str | None, typer.Option(help="What BM25 counts: word or char; default: by the script of the documents.")
    ] = None,
    depth: Annotated[int, typer.Option(min=1, max=100_000, help="Documents to consider for each query.")] = 100,
    strata: Annotated[
        str, typer.Option(help="How many candidates to draw from which ranks, such as 1-10:4,11-100:4.")
    ] = "1-10:4,11-100:4",
    margin: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            callback=_finite,
            help="Leave out candidates that score more than the query's positive minus this.",
        ),
    ] = None,
    relative_margin: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            callback=_finite,
            help="Leave out candidates that score more than the query's positive minus this share of it.",
        ),
    ] = None,
    max_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, callback=_finite, help="Leave out candidates that score more than this, in [0, 1]."),
    ] = None,
    percentile: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            callback=_finite,
            help="Leave out candidates that score more than this percentile of all positives.",
        ),
    ] = None,
    labels: Annotated[
        str, typer.Option(help="Label of mined candidates: zero (a negative), or teacher (the teacher's score).")
    ] = "zero",
    clusters: Annotated[
        str | None,
        typer.Option(help="Columns with the clusters of query and document, such as a,b: false negatives are counted."),
    ] = None,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    max_length: MaxLength = None,
    seed: Annotated[int, typer.Option(min=0, max=2_147_483_647, help="Seed of the random choices.")] = 0,
    skip_bad_rows: Annotated[
        bool,
        typer.Option("--skip-bad-rows", help="Leave out bad rows, and print how many; default: refuse the file."),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Mine into an earlier folder with other settings; its cached results are used again."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find hard negatives, or pairs to be scored by a teacher: candidates for each query, without likely answers."""
    from distill.mining.choosing import FalseNegatives, read_strata
    from distill.mining.mine import MiningSettings
    from recipes.mining import MiningSource, mine_file
    from recipes.options import OpeningOptions, OutputPlace, one_of, read_label_range

    if all_positive:
        why = "is of labels, and --all-positive reads none; leave --all-positive out"
        refuse_unread(context, why, "label_column", "positive_from")
    if documents is None:
        refuse_unread(context, "is of the documents, and there are none; add --documents", "column")
    settings = MiningSettings(
        depth=depth,
        strata=read_strata(strata),
        false_negatives=FalseNegatives(margin, relative_margin, max_score, percentile),
        labels=one_of("--labels", labels, ("zero", "teacher")),
        positive_from=positive_from,
        terms=None if terms is None else one_of("--terms", terms, ("word", "char")),
        seed=seed,
    )
    source = MiningSource(
        pairs=pairs,
        columns=(query_column, document_column, None if all_positive else label_column),
        label_range=read_label_range(label_range),
        documents=documents,
        column=column,
        clusters=clusters,
        skip_bad_rows=skip_bad_rows,
    )
    mine_file(
        source,
        OutputPlace(str(output), overwrite),
        settings,
        {"retriever": None if retriever == "bm25" else Path(retriever), "teacher": teacher},
        opening=OpeningOptions(runtime, precision, threads, max_length),
        as_json=as_json,
    )


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A finished model folder with its card.")],
    repository: Annotated[str, typer.Argument(help="Repository on the Hugging Face hub, such as name/model.")],
    public: Annotated[bool, typer.Option("--public", help="Make the repository public; default: private.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be uploaded, and upload nothing.")
    ] = False,
) -> None:
    """Upload a model folder to the Hugging Face hub."""
    from distill.report.model_card import push as upload

    print(upload(folder, repository, private=not public, dry_run=dry_run))


@app.command()
def ablate(
    recipe: Annotated[
        str,
        typer.Argument(metavar="ABLATION.yaml", help="An ablation recipe, such as recipes/ablation_resume_jd.yaml."),
    ],
    overrides: Overrides = None,
    rows: Annotated[
        str, typer.Option(help="Run only the rows of these models, such as tfidf,mbert; default: all.")
    ] = "",
    versions: Annotated[str, typer.Option(help="Run only these data versions, such as V1; default: all.")] = "",
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Use generated pairs and tiny encoders: minutes on a CPU.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train and score all rows of a published table, and print our values beside the published ones."""
    from distill.ablation import check_names, load_ablation
    from recipes.options import names_in
    from recipes.printing import print_ablation

    ablation = load_ablation(recipe, overrides or [], smoke=smoke)
    check_names(ablation, names_in(rows), names_in(versions))
    join_processes()
    from distill.errors import JobFailed
    from teachers.ablation import run_ablation

    try:
        run_ablation(ablation, only=names_in(rows), versions=names_in(versions), smoke=smoke)
    except JobFailed:  # the table is there, without the rows that failed
        print_ablation(ablation.folder, as_json=as_json)
        raise
    print_ablation(ablation.folder, as_json=as_json)


@app.command()
def plan(
    context: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE.yaml]", help="A recipe whose sections plan, data, teachers and student are used."
        ),
    ] = None,
    overrides: Overrides = None,
    budget_p95_ms: Annotated[
        float | None,
        typer.Option(callback=_finite, help="The most milliseconds at p95 for one text (or pair) at a time."),
    ] = None,
    budget_mb: Annotated[
        float | None, typer.Option(callback=_finite, help="The most megabytes of the exported folder.")
    ] = None,
    length: Annotated[int | None, typer.Option(help="Tokens of the measured text (or pair); default: 256.")] = None,
    threads: Threads = None,
    kind: Annotated[str | None, typer.Option(help="bi_encoder or cross_encoder; default: the recipe's.")] = None,
    vocabulary: Annotated[
        int | None,
        typer.Option(help="Number of tokens; default: 32000 for a fresh encoder, the backbone's own for a cut one."),
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="Architecture of fresh encoders, bert or xlm-roberta; default: bert.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder of the plan; default: plan in the run's folder, or runs/plan."),
    ] = None,
    check: Annotated[Path | None, typer.Option(help="Measure this finished export against the budget instead.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure on this machine and find the largest students within a budget of latency and size."""
    from distill.files.artefact import check_model_folder
    from distill.recipe.planning import load_plan
    from recipes.printing import print_check, print_plan
    from students.plan.floor import check_plan

    plan_settings = {
        "budget_p95_ms": budget_p95_ms,
        "budget_mb": budget_mb,
        "length": length,
        "threads": threads,
        "kind": kind,
        "vocabulary": vocabulary,
        "family": family,
    }
    loaded_recipe, folder = load_plan(recipe, overrides or [], plan_settings, output)
    if check is not None:
        refuse_unread(context, "is of a plan, and --check writes none; leave --check out", "output", "overwrite")
    else:
        from distill.files.outputs import check_output_folder

        # the plan of a run, and the unnamed one, are made again where they are
        check_output_folder(
            folder,
            ours=("plan.json", "measurements.json", "recipe.json", ".work/lock"),
            overwrite=overwrite or output is None,
        )
    check_plan(loaded_recipe, None if check is not None else folder)
    if check is not None:
        check_model_folder(check)
    join_processes()
    from students.plan.search_shapes import check_model, make_plan

    if check is not None:
        print_check(check_model(loaded_recipe, check), as_json=as_json)
        return
    make_plan(loaded_recipe, folder)
    print_plan(folder, as_json=as_json)


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="Any model folder: torch, OpenVINO or ONNX.")],
    pairs: Annotated[str, typer.Argument(help="A .csv, .tsv, .jsonl or .parquet file (or hub dataset) of pairs.")],
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            help="A .csv, .tsv, .jsonl or .parquet with row (of the input, from 1), score, unit_score (in [0, 1]); on Ray a folder.",
        ),
    ],
    query_column: QueryColumn = "query",
    document_column: DocumentColumn = "document",
    other_side: Annotated[
        Path | None, typer.Option(help="The teacher's folder, if MODEL reads only one side of the pairs.")
    ] = None,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    max_length: MaxLength = None,
    special_tokens_as_text: AsText = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A host that a remote scorer may send the texts to, such as api.openai.com."),
    ] = None,
    key_variable: Annotated[
        str | None, typer.Option(help="Environment variable that holds the host's key; default: OPENAI_API_KEY.")
    ] = None,
    calibrated: Annotated[
        bool,
        typer.Option("--calibrated", help="Add the column probability, from the calibration in the model's folder."),
    ] = False,
    decide: Annotated[
        bool,
        typer.Option("--decide", help="Add the column match: 1 if the score reaches the folder's threshold, else 0."),
    ] = False,
    skip_bad_rows: Annotated[
        bool,
        typer.Option(
            "--skip-bad-rows", help="Leave out rows without two texts, and print how many; default: refuse the file."
        ),
    ] = False,
    engine: Engine = None,
    actors: NumberOfActors = None,
    actor_cpus: ActorCpus = None,
    actor_gpus: ActorGpus = None,
    ray_address: RayAddress = None,
    keep: Keep = None,
    shard_rows: ShardRows = None,
    overwrite: Overwrite = False,
) -> None:
    """Score pairs: a bi-encoder gives cosines, a cross-encoder logits; unit_score maps either to [0, 1], --calibrated to probabilities."""
    from recipes.options import OpeningOptions, OutputPlace, PairFile, Scoring, ray_options

    ray_settings = {"actors": actors, "actor_cpus": actor_cpus, "actor_gpus": actor_gpus, "ray_address": ray_address}
    ray = ray_options(engine, {**ray_settings, "keep": keep, "shard_rows": shard_rows})
    pair_file = PairFile(pairs, query_column, document_column, skip_bad_rows)
    scoring = Scoring(other_side, tuple(allow_host or ()), key_variable, calibrated, decide)
    opening = OpeningOptions(runtime, precision, threads, max_length, special_tokens_as_text)
    if ray is None:
        from recipes.score_embed import score_file

        score_file(model, pair_file, OutputPlace(output, overwrite), scoring=scoring, opening=opening)
        return
    from recipes.ray_jobs import score_on_ray

    score_on_ray(model, pair_file, OutputPlace(output, overwrite), scoring=scoring, opening=opening, ray=ray)


@app.command()
def embed(
    model: Annotated[Path, typer.Argument(help="A bi-encoder's folder: torch, OpenVINO or ONNX.")],
    texts: Annotated[str, typer.Argument(help="A .txt file, one text a line, or a table with a text column.")],
    output: Annotated[
        str, typer.Option("-o", "--output", help="A .npy of float32 (n_texts, width); on Ray a folder of Parquet.")
    ],
    column: Annotated[str, typer.Option(help="Column of the texts, in a table.")] = "text",
    prompt: Annotated[str | None, typer.Option(help="A prompt stored with the model: query or document.")] = None,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    max_length: MaxLength = None,
    truncate: Annotated[
        int | None,
        typer.Option(min=1, help="Keep the first N dimensions, of a student trained with matryoshka or dimensions."),
    ] = None,
    special_tokens_as_text: AsText = False,
    engine: Engine = None,
    actors: NumberOfActors = None,
    actor_cpus: ActorCpus = None,
    actor_gpus: ActorGpus = None,
    ray_address: RayAddress = None,
    keep: Keep = None,
    shard_rows: ShardRows = None,
    overwrite: Overwrite = False,
) -> None:
    """Embed texts with a bi-encoder."""
    from recipes.options import Embedding, OpeningOptions, OutputPlace, TextFile, ray_options

    ray_settings = {"actors": actors, "actor_cpus": actor_cpus, "actor_gpus": actor_gpus, "ray_address": ray_address}
    ray = ray_options(engine, {**ray_settings, "keep": keep, "shard_rows": shard_rows})
    text_file, embedding = TextFile(texts, column), Embedding(prompt, truncate)
    opening = OpeningOptions(runtime, precision, threads, max_length, special_tokens_as_text)
    if ray is None:
        from recipes.score_embed import embed_file

        embed_file(model, text_file, OutputPlace(output, overwrite), embedding=embedding, opening=opening)
        return
    from recipes.ray_jobs import embed_on_ray

    embed_on_ray(model, text_file, OutputPlace(output, overwrite), embedding=embedding, opening=opening, ray=ray)


@app.command()
def index_quality(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="A bi-encoder's folder.")],
    pairs: Annotated[str, typer.Argument(help="A .csv, .tsv, .jsonl or .parquet file (or hub dataset) of pairs.")],
    query_column: QueryColumn = "query",
    document_column: DocumentColumn = "document",
    label_column: Annotated[
        str | None, typer.Option(help="Column of the labels; default: compare with the exact search only.")
    ] = None,
    label_range: Annotated[
        str, typer.Option(help="Least and greatest label, such as 0,5; a document is relevant from the middle on.")
    ] = "0,1",
    truncate: Annotated[str, typer.Option(help="Smaller widths to measure as well, such as 256,128.")] = "",
    corpus: Annotated[str | None, typer.Option(help="More documents to search: a .txt or a table.")] = None,
    column: Annotated[str, typer.Option(help="Column of the corpus's texts.")] = "text",
    max_queries: Annotated[int, typer.Option(min=1, max=_MOST, help="The most queries to search for.")] = 500,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    max_length: MaxLength = None,
    as_json: AsJson = False,
) -> None:
    """Measure how many results a search index loses in int8, as sign bits and with fewer dimensions."""
    if label_column is None:
        refuse_unread(context, "is of labels, and none are read; add --label-column", "label_range")
    if corpus is None:
        refuse_unread(context, "is of the corpus, and there is none; add --corpus", "column")
    from recipes.commands import IndexSearch, print_index_quality
    from recipes.options import LabelledFile, OpeningOptions, TextFile

    print_index_quality(
        model,
        LabelledFile(pairs, query_column, document_column, label_column, label_range),
        IndexSearch(truncate, None if corpus is None else TextFile(corpus, column), max_queries),
        opening=OpeningOptions(runtime, precision, threads, max_length),
        as_json=as_json,
    )


@app.command()
def trim(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    target: Annotated[Path, typer.Argument(help="The new folder.")],
    texts: Annotated[
        list[str], typer.Option(help="A .txt, or FILE:COLUMN,… of a table; repeat it for each language or domain.")
    ],
    coverage: Annotated[
        float | None,
        typer.Option(callback=_finite, help="Share of each source's token occurrences that stay; default: 0.999."),
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, help="The most tokens that stay, instead of a coverage.")] = None,
    changed: Annotated[
        Path | None,
        typer.Option(help="A .csv, .tsv, .jsonl or .parquet to list the texts that are tokenised differently now."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Cut a model's vocabulary to the tokens that some texts use. Their embeddings stay the same."""
    from recipes.printing import print_trim
    from students.trim import KeptTokens, trim_folder

    kept_tokens = KeptTokens.from_options(coverage, size)
    print_trim(trim_folder(model, target, texts, kept_tokens, changed=changed, overwrite=overwrite), as_json=as_json)


@app.command()
def tune(
    model: Annotated[
        Path, typer.Argument(help="A model folder with an OpenVINO or ONNX graph, or a folder of exports.")
    ],
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: Threads = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=_MOST, callback=_finite, help="About how many seconds to measure each graph.")
    ] = 15.0,
    as_json: AsJson = False,
) -> None:
    """Measure which settings and which export run fastest on this machine, and store it for later loads."""
    from recipes.commands import tune_model
    from recipes.options import OpeningOptions

    tune_model(model, OpeningOptions(runtime, precision, threads), seconds=seconds, as_json=as_json)


@app.command()
def layout(
    model: Annotated[Path, typer.Argument(help="An export's folder, as runs/quickstart/exports/onnx-int8.")],
    target: Annotated[Path, typer.Argument(help="The folder to write.")],
    tool: Annotated[str, typer.Option("--for", help="The tool: fastembed, tei, transformers.js, triton or optimum.")],
    calibrated: Annotated[
        bool,
        typer.Option(
            "--calibrated",
            help="Put a cross-encoder's calibration into the graph: the sigmoid of its logits is a probability.",
        ),
    ] = False,
) -> None:
    """Write an export as a folder that another tool reads."""
    from students.export.layouts import how_to_open, write_layout

    write_layout(model, target, tool=tool, calibrated=calibrated)  # type: ignore[arg-type]  # it says what is accepted
    print(f"{model} → {target}, opened by {how_to_open(tool, target)}", file=sys.stderr)  # type: ignore[arg-type]


@app.command()
def prepare(
    resumes: Annotated[str, typer.Argument(help="A .csv, .tsv, .jsonl or .parquet file with a column of résumés.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A file of the same format.")],
    column: Annotated[str, typer.Option(help="Column of the résumés.")] = "resume",
    keep: Annotated[
        str, typer.Option(help="Sections to keep, such as experience,education,skills; default: the whole text.")
    ] = "",
    blind: Annotated[
        bool, typer.Option("--blind", help="Remove names, addresses, birth dates and other personal data.")
    ] = False,
    dropped: Annotated[
        Path | None, typer.Option(help="A .csv, .tsv, .jsonl or .parquet that lists the dropped text.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Cut résumés to some sections, remove personal data, or both."""
    from distill.data.resume_file import Preparation, prepare_file
    from recipes.options import names_in

    prepared = prepare_file(
        resumes,
        output,
        column=column,
        preparation=Preparation(names_in(keep) if keep else None, blind),
        dropped=dropped,
        overwrite=overwrite,
    )
    print(f"{prepared} → {output}", file=sys.stderr)


@app.command()
def fetch_data(
    name: Annotated[
        str,
        typer.Argument(
            help="stsb (English pairs), korsts (Korean pairs) or ko_en (the same sentences in both languages)."
        ),
    ],
    source: Annotated[
        Path | None, typer.Option("--from", help="A folder that holds the set; default: from the Hugging Face hub.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write below.")] = Path("data"),
    overwrite: Overwrite = False,
) -> None:
    """Get a public set that recipes read, from the hub or from a folder."""
    from distill.data.fetching import fetch

    print(fetch(name, output, source=source, overwrite=overwrite), file=sys.stderr)


@app.command()
def synthesize(
    output: Annotated[Path, typer.Argument(help="A folder. The same command continues where it stopped.")],
    pairs: Annotated[int, typer.Option(min=2, help="How many pairs the folder has in the end.")],
    model: Annotated[str, typer.Option(help="The model's name at the endpoint.")] = "gpt-4o-mini",
    base_url: Annotated[str | None, typer.Option(help="Any OpenAI-compatible server; default: OpenAI's.")] = None,
    api_version: Annotated[str | None, typer.Option(help="API version of an Azure deployment.")] = None,
    key_variable: Annotated[
        str | None, typer.Option(help="Environment variable with the key; default: OPENAI_API_KEY.")
    ] = None,
    languages: Annotated[str, typer.Option(help="Languages of the pairs.")] = "ko,en",
    grades: Annotated[bool, typer.Option("--grades", help="Label with grades 0 to 4 instead of 0 and 1.")] = False,
    budget: Annotated[
        float, typer.Option(callback=_finite, help="The most dollars to spend, over all runs into the folder.")
    ] = 5.0,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests at the same time; default: 8.")] = None,
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests per minute at most.")] = None,
    tpm: Annotated[int | None, typer.Option(min=1, help="Tokens per minute at most.")] = None,
    input_price: Annotated[
        float | None,
        typer.Option(callback=_finite, help="Dollars per million prompt tokens, for a model without a known price."),
    ] = None,
    output_price: Annotated[
        float | None, typer.Option(callback=_finite, help="Dollars per million answer tokens, likewise.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(callback=_finite, help="Seconds to wait for an answer; default: 120.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2_147_483_647, help="Seed of the random choices.")] = 0,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Print what it would cost, and send no request.")
    ] = False,
) -> None:
    """Let a language model write résumé–JD pairs: positives, hard negatives and random ones."""
    from distill.synthesis.synthesize import estimate as estimated
    from distill.synthesis.synthesize import make_settings
    from distill.synthesis.synthesize import synthesize as write

    settings = make_settings(
        n_pairs=pairs,
        model=model,
        base_url=base_url,
        api_version=api_version,
        key_variable=key_variable,
        languages=languages,
        labels="grades" if grades else "binary",
        budget_usd=budget,
        concurrency=concurrency,
        requests_per_minute=rpm,
        tokens_per_minute=tpm,
        input_price=input_price,
        output_price=output_price,
        timeout_s=timeout,
        seed=seed,
    )
    if estimate:
        print(estimated(settings))
    else:
        write(settings, output)


def _print_report(recipe: str, overrides: list[str] | None, as_json: bool) -> None:
    from distill.recipe.reading import load_recipe
    from recipes.printing import print_report

    print_report(load_recipe(recipe, overrides or []).folder, as_json=as_json)


def _print_parity(recipe: str, overrides: list[str] | None, as_json: bool) -> None:
    from distill.recipe.reading import load_recipe
    from recipes.printing import print_parity

    print_parity(load_recipe(recipe, overrides or []).folder, as_json=as_json)


def command() -> Any:
    """Return the command line as click sees it."""
    return with_help_of_arguments(app)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    set_up_messages()
    code: Any = 0

    def work() -> None:
        nonlocal code
        refuse_empty_arguments(sys.argv[1:] if argv is None else argv)
        code = command()(args=argv, prog_name="distill", standalone_mode=False)
        if code == 130:  # what typer makes of Ctrl-C, without a word
            raise KeyboardInterrupt

    try:
        return guarded(work) or int(code or 0)
    except typer.Exit as stop:
        return stop.exit_code
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own: a wrong option or argument
            raise
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help
            print(error.format_message(), file=sys.stderr)
        else:
            print(f"error: {_click_message(error)}", file=sys.stderr)
        return 2


def _click_message(error: Any) -> str:
    """Return click's message on a wrong option or argument, and where the accepted ones are listed."""
    message = (
        re.sub(r"( Did you mean .+?\?)\1", r"\1", error.format_message())
        .rstrip(".")
        .replace("is not a valid integer range", "is not a whole number")
    )
    message = message.replace(
        "Input should be a valid integer, unable to parse string as an integer", "it is not a whole number"
    )
    context = getattr(error, "ctx", None)
    return f"{message}; see {'distill' if context is None else context.command_path} --help"


if __name__ == "__main__":
    sys.exit(main())
