"""The `distill` command: the stages of a recipe, and scoring and embedding with any finished model.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from recipes import _stages
from recipes._launch import guarded, join_processes, launch, set_up_messages

__all__ = ["main"]

app = typer.Typer(
    help="Distil large text-matching teachers into small students, int8 on a plain CPU, and show what was lost.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)  # fmt: skip

RecipePath = Annotated[str, typer.Argument(metavar="RECIPE.yaml", help="The recipe.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As training.learning_rate=1.0e-4.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Runtime = Annotated[
    str | None, typer.Option(help="torch, openvino or onnx; default: what the folder holds, graphs first.")
]
Precision = Annotated[str | None, typer.Option(help="fp32 or bf16; default: the runtime's own.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Default: every CPU this process may use.")]
MaxLength = Annotated[int | None, typer.Option(min=3, help="Tokens; default: the model's own.")]


@app.command()
def run(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Run all stages: finished ones are skipped, an interrupted one goes on."""
    launch(recipe, overrides or [], _stages.every_stage)
    _print_report(recipe, overrides, as_json)


@app.command()
def train_teacher(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Train the recipe's teachers."""
    launch(recipe, overrides or [], _stages.train_teacher)


@app.command()
def cache_signals(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Cache what the teachers say of the training pairs."""
    launch(recipe, overrides or [], _stages.cache_signals)


@app.command()
def train_student(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Train the student and its control."""
    launch(recipe, overrides or [], _stages.train_student)


@app.command()
def export(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Export the student to OpenVINO, as is and int8, each checked against torch."""
    launch(recipe, overrides or [], _stages.export)
    _print_parity(recipe, overrides, as_json)


@app.command()
def benchmark(recipe: RecipePath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Measure every model of the run and write the report."""
    launch(recipe, overrides or [], _stages.benchmark)
    _print_report(recipe, overrides, as_json)


@app.command()
def ablate(
    recipe: Annotated[str, typer.Argument(metavar="ABLATION.yaml", help="As recipes/ablation_resume_jd.yaml.")],
    overrides: Overrides = None,
    rows: Annotated[str, typer.Option(help="Models of the rows to run, as tfidf,mbert; default: all.")] = "",
    versions: Annotated[str, typer.Option(help="Data versions to run, as V1; default: all.")] = "",
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Generated pairs and tiny encoders: minutes on a CPU.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train and score all rows of a published table, and print it with ours beside it."""
    from distill.ablation import load_ablation
    from distill.apply import names_in, print_ablation

    ablation = load_ablation(recipe, overrides or [], smoke=smoke)
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
def score(
    model: Annotated[Path, typer.Argument(help="Any model folder: torch, OpenVINO or ONNX.")],
    pairs: Annotated[str, typer.Argument(help="A .csv, .tsv, .jsonl or .parquet file (or hub dataset) of pairs.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .tsv: row, score, unit_score in [0, 1].")],
    query_column: str = "query",
    document_column: str = "document",
    runtime: Runtime = None,
    precision: Precision = None,
    threads: Threads = None,
    max_length: MaxLength = None,
) -> None:
    """Score pairs: cosines of a bi-encoder, logits of a cross-encoder."""
    from distill.apply import score_file

    score_file(
        model,
        pairs,
        output,
        query_column=query_column,
        document_column=document_column,
        runtime=runtime,
        precision=precision,
        n_threads=threads,
        max_length=max_length,
    )


@app.command()
def embed(
    model: Annotated[Path, typer.Argument(help="A bi-encoder's folder: torch, OpenVINO or ONNX.")],
    texts: Annotated[str, typer.Argument(help="A .txt file, one text a line, or a table with a text column.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .npy of float32 (n_texts, width).")],
    column: str = "text",
    prompt: Annotated[str | None, typer.Option(help="A prompt stored with the model: query or document.")] = None,
    runtime: Runtime = None,
    precision: Precision = None,
    threads: Threads = None,
    max_length: MaxLength = None,
) -> None:
    """Embed texts."""
    from distill.apply import embed_file

    embed_file(
        model,
        texts,
        output,
        column=column,
        prompt=prompt,
        runtime=runtime,
        precision=precision,
        n_threads=threads,
        max_length=max_length,
    )


@app.command()
def prepare(
    resumes: Annotated[str, typer.Argument(help="A .csv, .tsv, .jsonl or .parquet file with a column of résumés.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A file of the same format.")],
    column: str = "resume",
    keep: Annotated[
        str, typer.Option(help="Sections to keep, as experience,education,skills; default: all of the text.")
    ] = "",
    blind: Annotated[bool, typer.Option("--blind", help="Take out who the person is.")] = False,
    dropped: Annotated[Path | None, typer.Option(help="A .tsv that lists what was dropped.")] = None,
) -> None:
    """Cut résumés to sections (the published V2), take out names, addresses and the like, or both."""
    from distill.apply import names_in
    from distill.resume_file import prepare_file

    print(
        prepare_file(
            resumes, output, column=column, keep=names_in(keep) if keep else None, blind=blind, dropped=dropped
        )
    )


@app.command()
def synthesize(
    output: Annotated[Path, typer.Argument(help="A folder; started again, it goes on where it was.")],
    pairs: Annotated[int, typer.Option(min=2, help="How many pairs to have in the end.")],
    model: Annotated[str, typer.Option(help="The model's name at the endpoint.")] = "gpt-4o-mini",
    base_url: Annotated[str | None, typer.Option(help="Any OpenAI-compatible server; default: OpenAI's.")] = None,
    api_version: Annotated[str | None, typer.Option(help="Of an Azure deployment.")] = None,
    key_variable: Annotated[
        str | None, typer.Option(help="Environment variable with the key; default: OPENAI_API_KEY.")
    ] = None,
    languages: Annotated[str, typer.Option(help="As ko,en.")] = "ko,en",
    grades: Annotated[bool, typer.Option("--grades", help="Grades 0 to 4 instead of 0 and 1.")] = False,
    budget: Annotated[
        float, typer.Option(help="Dollars that are never exceeded, over all runs into the folder.")
    ] = 5.0,
    concurrency: Annotated[int | None, typer.Option(min=1)] = None,
    rpm: Annotated[int | None, typer.Option(min=1, help="Requests per minute at most.")] = None,
    tpm: Annotated[int | None, typer.Option(min=1, help="Tokens per minute at most.")] = None,
    input_price: Annotated[
        float | None, typer.Option(help="Dollars per million tokens, of a model without a known price.")
    ] = None,
    output_price: Annotated[float | None, typer.Option()] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for a whole answer; default: 120.")] = None,
    seed: int = 0,
    estimate: Annotated[bool, typer.Option("--estimate", help="Print what it would cost, and ask nothing.")] = False,
) -> None:
    """Have a language model write résumé-JD pairs: positives, hard negatives, random ones."""
    from distill.synthesize import estimate as estimated
    from distill.synthesize import make_settings
    from distill.synthesize import synthesize as write

    settings = make_settings(
        n_pairs=pairs, model=model, base_url=base_url, api_version=api_version, key_variable=key_variable,
        languages=languages, labels="grades" if grades else "binary", budget_usd=budget, concurrency=concurrency,
        requests_per_minute=rpm, tokens_per_minute=tpm, input_price=input_price, output_price=output_price, timeout_s=timeout,
        seed=seed,
    )  # fmt: skip
    if estimate:
        print(estimated(settings))
    else:
        write(settings, output)


def _print_report(recipe: str, overrides: list[str] | None, as_json: bool) -> None:
    from distill.apply import print_report
    from distill.recipe import load_recipe

    print_report(load_recipe(recipe, overrides or []).folder, as_json=as_json)


def _print_parity(recipe: str, overrides: list[str] | None, as_json: bool) -> None:
    from distill.apply import print_parity
    from distill.recipe import load_recipe

    print_parity(load_recipe(recipe, overrides or []).folder, as_json=as_json)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    set_up_messages()
    code: Any = 0

    def work() -> None:
        nonlocal code
        code = app(args=argv, prog_name="distill", standalone_mode=False)
        if code == 130:  # what typer makes of Ctrl-C, without a word
            raise KeyboardInterrupt

    try:
        return guarded(work) or int(code or 0)
    except typer.Exit as stop:
        return stop.exit_code
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own: a wrong option or argument
            raise
        print(f"error: {error.format_message().rstrip('.')}; see distill --help", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
