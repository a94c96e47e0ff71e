"""The one training loop, on accelerate, for teachers and students alike.

    plan (seed, epoch) ──▶ passes of a step ──▶ step(batch) → named losses ──▶ sum, backward ──▶ clip, AdamW
                                                                  at intervals: validate, keep the best, checkpoint

Apart from dropout, the curve depends on `global_batch`, not on how it is split into passes and processes. This includes
losses that compare the units of a step with each other. The learning rate and the weights of the losses are pure
functions of the step. The random state of each pass is derived from (seed, step, pass), so a run that was killed and
resumed ends with the same bits.
"""

import json
import logging
import math
import shutil
import time
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, gather_object
from torch import Tensor

from distill.errors import JobFailed, Terminated
from distill.files.artefact import new_file, write_json
from distill.machine.memory import keep_freed_memory
from distill.machine.precision import resolve_precision
from distill.machine.termination import termination_requests
from distill.progress import progress
from distill.recipe.schema import Training
from distill.training.batching import Planner
from distill.training.coupling import CoupledStep, check_couplable, run_coupled
from distill.training.row_adam import RowAdamW, clip_row_gradients
from distill.training.task import TaskStep, Units

__all__ = ["TrainResult", "TrainingOutput", "learning_rate_factor", "make_accelerator", "train"]

log = logging.getLogger(__name__)
_GRACE_SECONDS = 4.0  # after SIGTERM, beside the step under way: for several processes to agree and write a checkpoint
_LOG_EVERY_STEPS = 10
_ODD_NORM = 3000.0  # times the median norm of the gradient


@dataclass
class TrainResult:
    """The result of a training; also the loop's state in a checkpoint.

    `history` has {"step", "seconds", losses by name, "learning_rate", "grad_norm"} every few steps and
    {"step", "validation"} per evaluation. None marks an undefined value: the norm of a gradient that
    overflowed in fp16, or a validation value that cannot be computed.
    """

    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best_value: float | None = None
    evaluations_without_gain: int = 0
    stopped_early: bool = False
    kept: str = "best"
    """Which weights were kept: of the best evaluation, or the last."""
    kept_because: str | None = None
    """Why the last ones were."""
    n_idle_steps: int = 0
    """Steps in which no objective had anything to learn from (no group, or a weight of 0): they change no weight."""
    n_skipped_steps: int = 0
    """Steps that fp16's scaler skipped, because a gradient had overflowed."""
    n_tokens: int = 0
    precision: str = ""
    """The precision of the computation; the last one if the run was resumed in another."""
    history: list[dict[str, float | None]] = field(default_factory=list)


@dataclass(frozen=True)
class TrainingOutput:
    """The name of a training in messages, and its folders."""

    title: str
    folder: Path
    """The folder of the checkpoints. A training continues from the one that it finds there."""
    tensorboard_folder: Path | None = None
    """The folder of the curves, if the recipe asks for them."""


def make_accelerator(settings: Training) -> Accelerator:
    """Return an accelerator for this machine in the recipe's precision; auto is resolved."""
    computed = resolve_precision(settings.precision, field="training.precision")
    precision = "no" if computed == "fp32" else computed
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()  # it would refuse a second training of this process in another precision
    # the schedule is ours, a function of the step: accelerate must not advance one
    return Accelerator(mixed_precision=precision, step_scheduler_with_optimizer=False)


def learning_rate_factor(step: int, n_steps: int, settings: Training) -> float:
    """Return the share of the learning rate for a step counted from 0: linear warm-up, then the schedule.

    >>> settings = Training(warmup_share=0.5, schedule="linear")
    >>> [learning_rate_factor(step, 8, settings) for step in (0, 1, 3, 4, 7)]
    [0.25, 0.5, 1.0, 1.0, 0.25]
    """
    n_warmup = round(n_steps * settings.warmup_share)
    if step < n_warmup:
        return (step + 1) / n_warmup
    if settings.schedule == "constant":
        return 1.0
    left = (n_steps - step) / max(1, n_steps - n_warmup)  # 1 at the end of the warm-up, 1/n at the last step
    return left if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * (1 - left)))


def train(
    build_step: Callable[[], TaskStep],
    trainset: Units,
    validation: Units | None,
    settings: Training,
    *,
    seed: int,
    output: TrainingOutput,
) -> tuple[TaskStep, TrainResult]:
    """Train a model and return its step with the best weights (or the last ones, without a validation set).

    :param build_step: builds the step, the same on every process
    :raises JobFailed: if the loss is not finite
    """
    keep_freed_memory()
    loop = _Loop(build_step, trainset, validation, settings, seed, output)
    with _one_thread() if loop.priced_as == "static" else nullcontext():
        result = loop.run()
    return loop.best_step(), result


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread: a static model's operations are too small to split.

    Sixty steps of 256 units took 1.1 s with one thread, but 15 s with two on a busy machine, because they wait for each
    other.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


class _Loop:
    def __init__(
        self,
        build_step: Callable[[], TaskStep],
        trainset: Units,
        validation: Units | None,
        settings: Training,
        seed: int,
        output: TrainingOutput,
    ) -> None:
        self.build_step, self.trainset, self.validation, self.settings = build_step, trainset, validation, settings
        self.seed, self.folder, self.title = seed, output.folder, output.title
        self.accelerator = accelerator = make_accelerator(settings)
        step = build_step()
        self.priced_as = "static" if step.is_static else "cuda" if accelerator.device.type == "cuda" else "cpu"
        self.planner = self._planner(trainset)
        n_steps = math.ceil(settings.epochs * self.planner.steps_per_epoch)
        self.n_steps = n_steps if settings.max_steps is None else min(n_steps, settings.max_steps)
        self.cannot_rank = self._why_unranked()
        self.norms: list[tuple[float, int]] = []  # of the gradient, with −step, sorted
        self.new_norms: dict[int, Tensor] = {}
        self.has_said_norm = False
        self.task = step  # as it is, beside `self.step`, which accelerate wraps
        if trainset.coupled:
            check_couplable(accelerator, step, output.title)
        self.trained = {name for name, parameter in step.named_parameters() if parameter.requires_grad}
        optimizer = RowAdamW(self._parameter_groups(step), lr=settings.learning_rate, fused=True)
        self.step, self.optimizer = accelerator.prepare(step, optimizer)
        self.is_sharded = accelerator.distributed_type == DistributedType.FSDP
        if self.is_sharded and accelerator.is_main_process:
            log.info("%s: FSDP shards its weights over %d processes", self.title, accelerator.num_processes)
        self.state = TrainResult()
        self.precision = {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
        self.writer = self._writer(output.tensorboard_folder)

    def _why_unranked(self) -> str | None:
        """Return why no evaluation can pick the best weights; None where one can."""
        if self.validation is None:
            return "there are no validation pairs"
        if not self.settings.evaluations_per_epoch:
            return "training.evaluations_per_epoch is 0"
        return self.validation.cannot_rank

    def _planner(self, trainset: Units) -> Planner:
        settings = self.settings
        return Planner(
            lengths=trainset.unit_lengths,
            sequences=trainset.unit_sequences,
            global_batch=settings.global_batch,
            micro_batch=settings.micro_batch,
            token_budget=settings.token_budget,
            seed=self.seed,
            n_processes=self.accelerator.num_processes,
            coupled=trainset.coupled,
            device=self.priced_as,
        )

    def _parameter_groups(self, step: TaskStep) -> list[dict[str, Any]]:
        beside_ids = {id(parameter) for parameter in step.beside_the_model()}
        trained = [
            parameter for parameter in step.parameters() if parameter.requires_grad and id(parameter) not in beside_ids
        ]
        decayed = [parameter for parameter in trained if parameter.ndim > 1]
        undecayed = [parameter for parameter in trained if parameter.ndim <= 1]  # biases and norms
        rate = self.settings.learning_rate
        groups = [
            {"params": decayed, "base_rate": rate, "weight_decay": self.settings.weight_decay},
            {"params": undecayed, "base_rate": rate, "weight_decay": 0.0},
            {
                "params": step.beside_the_model(),
                "base_rate": max(rate, self.settings.auxiliary_learning_rate),
                "weight_decay": 0.0,
            },
        ]
        return [group for group in groups if group["params"]]

    def _writer(self, folder: Path | None) -> Any:
        if folder is None or not self.settings.tensorboard or not self.accelerator.is_main_process:
            return None
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder))

    def run(self) -> TrainResult:
        self._resume()
        self.state.precision = self.precision
        if self.cannot_rank is not None:
            # evaluations that were turned off are no news
            tell = log.warning if self.settings.evaluations_per_epoch else log.info
            tell("%s: %s, so no evaluation can pick weights; the last ones are kept", self.title, self.cannot_rank)
        state, last_save, began = self.state, time.monotonic(), time.monotonic() - self.state.seconds
        if not state.step and self.validation is not None and self.validation.valued_at_start:
            state.history.append({"step": 0, "validation": self._evaluate()})
        show = self.accelerator.is_main_process
        is_distributed, step_seconds = self.accelerator.num_processes > 1, 0.0
        with (
            progress(self.title, self.n_steps, start=state.step, show=show) as report,
            termination_requests((lambda: _GRACE_SECONDS + step_seconds) if is_distributed else None) as must_end,
        ):
            while state.step < self.n_steps and not state.stopped_early:
                step_began = time.monotonic()
                self._one_step(began)
                step_seconds = time.monotonic() - step_began
                evaluated = self._maybe_evaluate()
                state.seconds = time.monotonic() - began
                report(1, self._note())
                due, ends = self._agreed(time.monotonic() - last_save >= self.settings.checkpoint_seconds, must_end())
                if (evaluated or due or ends) and state.step < self.n_steps:
                    self._save()
                    last_save = time.monotonic()
                    if ends:
                        raise Terminated(
                            f"{self.title}: SIGTERM at step {state.step} of {self.n_steps}; its checkpoint is written, and the same command goes on from it"
                        )
        if self.writer:
            self.writer.close()
        self._conclude()
        return state

    def _conclude(self) -> None:
        """Log which weights are kept and why, and how many steps learned nothing."""
        state = self.state
        if not state.best_step:
            state.kept = "last"
            state.kept_because = self.cannot_rank or "the validation value was undefined in every evaluation"
            if self.cannot_rank is None:
                log.warning("%s: %s; the last weights are kept", self.title, state.kept_because)
        if state.n_idle_steps:
            log.warning(
                "%s: %d of %d steps held nothing to learn from (no group, no positive, or all weights scheduled to 0); "
                "they counted for nothing",
                self.title,
                state.n_idle_steps,
                state.step,
            )
        if state.n_skipped_steps:
            log.info("%s: %d steps were skipped, their gradients overflowed fp16", self.title, state.n_skipped_steps)

    def _agreed(self, due: bool, ends: bool) -> tuple[bool, bool]:
        """Use the first process's clock and any process's signal for all processes, because they save together."""
        if self.accelerator.num_processes == 1:
            return due, ends
        flags = torch.tensor([due and self.accelerator.is_main_process, ends], dtype=torch.float32)
        due, ends = (self.accelerator.reduce(flags.to(self.accelerator.device), "sum") > 0).tolist()
        return due, ends

    def _one_step(self, began: float) -> None:
        state, settings = self.state, self.settings
        factor = learning_rate_factor(state.step, self.n_steps, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_rate"] * factor
        passes = self.planner.step(state.step)
        totals = self.trainset.counts(np.concatenate([units for per_process in passes for units in per_process]))
        weights = self.task.factors(state.step / max(1, self.n_steps - 1))
        self.step.train()
        if self.trainset.coupled and (len(passes) > 1 or self.accelerator.num_processes > 1):
            coupled = CoupledStep(self.trainset, passes, totals, weights, self._pass_seed)
            sums, n_tokens = run_coupled(self.accelerator, self.step, self.task, coupled)
        else:
            sums, n_tokens = self._run_passes(passes, totals, weights)
        state.n_tokens += n_tokens
        learns = self.task.learns_from(totals, weights)
        if not learns:
            sums = {}  # the losses are zero because the step has nothing to average, not because they are learned
        norm = self._update(idle=not learns)
        state.step += 1
        if norm is not None and not self.has_said_norm:
            self.new_norms[state.step] = norm.detach()
        if state.step % _LOG_EVERY_STEPS == 0 or state.step in (1, self.n_steps):
            self._log(sums, norm, settings.learning_rate * factor, time.monotonic() - began)

    def _run_passes(
        self, passes: Sequence[Sequence[np.ndarray]], totals: Mapping[Any, int], weights: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], int]:
        """Accumulate the gradients of a step's passes; return its losses by name and this process's token count."""
        sums: dict[str, Tensor] = {}
        n_tokens = 0
        for number, per_process in enumerate(passes):
            batch = self.trainset.batch(
                per_process[self.accelerator.process_index], totals=totals, n_processes=self.accelerator.num_processes
            ).to(self.accelerator.device)
            n_tokens += sum(int(part["attention_mask"].sum()) for part in batch.inputs)
            self._sow(self._pass_seed(number))
            last = number == len(passes) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.step):
                terms = {name: weights.get(name, 1.0) * loss for name, loss in self.step(batch).items()}
                self.accelerator.backward(torch.stack(list(terms.values())).sum())
            terms.pop("nothing")
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value.detach()
        return sums, n_tokens

    def _update(self, *, idle: bool) -> Tensor | None:
        """Update the weights and return the gradient's norm; an idle step changes nothing, also not by weight decay."""
        norm = None
        if idle:
            self.state.n_idle_steps += 1
        else:
            norm = self._clip()
            self.optimizer.step()
            # a fused optimizer skips inside its kernel, and `step_was_skipped` of accelerate does not see it
            if self.accelerator.scaler is not None and norm is not None and not math.isfinite(float(norm)):
                self.state.n_skipped_steps += 1
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _sow(self, seed: int) -> None:
        """Seed this device's random generator, which dropout uses."""
        if self.accelerator.device.type == "cpu":
            # `torch.manual_seed` would also queue a call, with a stack trace, for each kind of device that is missing
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def _pass_seed(self, number: int) -> int:
        """The seed of a pass's dropout, on this process."""
        entropy = [self.seed, self.state.step, number, self.accelerator.process_index]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    def _clip(self) -> Tensor | None:
        limit = self.settings.max_grad_norm
        # clipping to infinity only measures; the norm says when the loss has become no number
        limit = math.inf if limit is None else limit
        parameters = [parameter for parameter in self.step.parameters() if parameter.grad is not None]
        if any(parameter.grad.is_sparse for parameter in parameters):
            self.accelerator.unscale_gradients()  # of fp16; nothing otherwise
            return clip_row_gradients(parameters, limit)
        norm: Tensor | None = self.accelerator.clip_grad_norm_(self.step.parameters(), limit)
        return norm

    def _log(self, sums: dict[str, Tensor], norm: Tensor | None, rate: float, seconds: float) -> None:
        """Average the losses over processes, raise on NaN, and record the row."""
        row: dict[str, float | None] = {**self._averaged(sums)}
        if not all(math.isfinite(value) for value in row.values() if value is not None):
            raise JobFailed(f"{self.title}: the loss is no number at step {self.state.step} ({row}); {self._remedy()}")
        row |= {"learning_rate": rate, "grad_norm": self._recorded(norm)}
        self._say_odd_norms()
        self.state.history.append({"step": self.state.step, "seconds": round(seconds, 3), **row})
        for name, value in row.items() if self.writer else ():
            if value is not None:
                self.writer.add_scalar(name, value, self.state.step)

    def _averaged(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the mean of every loss over processes; {} for a step with nothing to learn from."""
        names = sorted(set(gather_object(sorted(sums)))) if self.accelerator.num_processes > 1 else sorted(sums)
        if not names:
            return {}
        zero = torch.zeros((), device=self.accelerator.device)
        values = torch.stack([sums.get(name, zero) for name in names])
        values = self.accelerator.reduce(values, "mean") if self.accelerator.num_processes > 1 else values
        return dict(zip(names, values.tolist(), strict=True))

    def _recorded(self, norm: Tensor | None) -> float | None:
        """Return the gradient's norm for the history, None if it overflowed and fp16's scaler skips the step.

        :raises JobFailed: if it is not finite and there is no scaler: the weights would become NaN
        """
        value = 0.0 if norm is None else float(norm)
        if math.isfinite(value):
            return value
        if self.accelerator.scaler is None:
            raise JobFailed(f"{self.title}: the gradient is no number at step {self.state.step}; {self._remedy()}")
        return None

    def _say_odd_norms(self) -> None:
        """Warn once of a step whose gradient is thousands of times as long as usual; norms wait on the device until now."""
        for step, new_norm in self.new_norms.items():
            if math.isfinite(norm := float(new_norm)) and norm > 0:
                insort(self.norms, (norm, -step))
        self.new_norms.clear()
        if self.has_said_norm or len(self.norms) < _LOG_EVERY_STEPS:
            return
        norm, negative_step = self.norms[-1]
        usual = (self.norms[(len(self.norms) - 1) // 2][0] + self.norms[len(self.norms) // 2][0]) / 2  # the median
        if norm > _ODD_NORM * usual:
            self.has_said_norm = True
            log.warning(
                "%s: the gradient of step %d has the norm %.2g, in the median %.2g: %s; look for odd texts or scores there",
                self.title,
                -negative_step,
                norm,
                usual,
                "without training.max_grad_norm it may undo what was learned"
                if self.settings.max_grad_norm is None
                else "clipped, a step learns from what caused it alone",
            )

    def _remedy(self) -> str:
        """What to do where a number overflowed."""
        if self.accelerator.mixed_precision == "no":
            return "lower training.learning_rate"
        return "lower training.learning_rate, or set training.precision=fp32 to see whether precision is the cause"

    def _note(self) -> str:
        last = next((row for row in reversed(self.state.history) if "learning_rate" in row), {})
        not_losses = ("step", "seconds", "learning_rate", "grad_norm")
        loss = sum(value for name, value in last.items() if name not in not_losses and value is not None)
        best = "" if self.state.best_value is None else f"  best {self.state.best_value:.4f}"
        return f"loss {loss:.4f}{best}" if last else ""

    def _maybe_evaluate(self) -> bool:
        state = self.state
        if self.cannot_rank is not None or not self._is_evaluated(state.step):
            return False
        value = self._evaluate()
        defined = math.isfinite(value)
        state.history.append({"step": state.step, "validation": value if defined else None})
        if self.writer and defined:
            self.writer.add_scalar("validation", value, state.step)
        if defined and (state.best_value is None or value > state.best_value):
            state.best_value, state.best_step, state.evaluations_without_gain = value, state.step, 0
            self._save_weights()
        else:
            state.evaluations_without_gain += 1
        patience = self.settings.patience
        is_early = state.step < self.n_steps
        state.stopped_early = is_early and patience is not None and state.evaluations_without_gain >= patience
        return True

    def _is_evaluated(self, step: int) -> bool:
        """Tell whether a step counted from 1 completes an equal part of an epoch, or is the last one."""
        before, done = (
            number * self.settings.evaluations_per_epoch // self.planner.steps_per_epoch for number in (step - 1, step)
        )
        return done > before or step == self.n_steps

    def _evaluate(self) -> float:
        """Return the validation value, each process predicting its part; higher is better."""
        validation = self.validation
        if validation is None:
            raise ValueError("evaluation needs a validation set")
        self.step.eval()
        own_parts: list[tuple[np.ndarray, np.ndarray]] = []
        totals = validation.counts(np.arange(len(validation)))
        with torch.no_grad():
            for per_process in self._planner(validation).evaluation():
                units = per_process[self.accelerator.process_index]
                batch = validation.batch(units, totals=totals).to(self.accelerator.device)
                scores = self.step(batch, predict=True)["scores"].float().cpu().numpy()
                if len(units):
                    own_parts.append((batch.rows, scores))
        all_parts = gather_object(own_parts) if self.accelerator.num_processes > 1 else own_parts
        rows, scores = (np.concatenate([part[i] for part in all_parts]) for i in (0, 1))
        if not np.isfinite(scores).all():
            raise JobFailed(
                f"{self.title}: {int((~np.isfinite(scores)).sum())} of {scores.size} validation scores are NaN or infinity at step {self.state.step}; "
                f"{self._remedy()}"
            )
        return validation.value(rows, scores)

    # -- checkpoints: step-00000123/ is complete, because it got this name by a rename

    def _save(self) -> None:
        state = self.state
        target, temporary = self.folder / f"step-{state.step:08d}", self.folder / ".checkpoint.tmp"
        if self.accelerator.is_main_process:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        try:
            self.accelerator.save_state(str(temporary), safe_serialization=True)
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                write_json(temporary / "loop.json", asdict(state))
                temporary.rename(target)
        finally:
            if self.accelerator.is_main_process:  # a partial checkpoint on a full disk would use up its space
                shutil.rmtree(temporary, ignore_errors=True)
        if self.accelerator.is_main_process:
            for old in self.folder.glob("step-*"):
                if old != target:
                    shutil.rmtree(old, ignore_errors=True)
            for old in self.folder.glob("best-*"):
                if old != self._best_weights():
                    old.unlink()
        self.accelerator.wait_for_everyone()

    def _best_weights(self) -> Path:
        return self.folder / f"best-{self.state.best_step:08d}.safetensors"

    def _resume(self) -> None:
        checkpoints = sorted(self.folder.glob("step-*"))
        if not checkpoints:
            return
        self.accelerator.load_state(str(checkpoints[-1]))
        self.state = TrainResult(**json.loads((checkpoints[-1] / "loop.json").read_text(encoding="utf-8")))
        log.info("%s resumes at step %d", self.title, self.state.step)

    def _save_weights(self) -> None:
        """Save the trainable part of the best weights; frozen weights have not changed."""
        from safetensors.torch import save_file

        state_dict = self.accelerator.get_state_dict(self.step)
        if self.accelerator.is_main_process:
            trained_weights = {
                name: value.contiguous().cpu() for name, value in state_dict.items() if name in self.trained
            }
            self.folder.mkdir(parents=True, exist_ok=True)
            with new_file(self._best_weights()) as temporary:
                save_file(trained_weights, temporary)
        self.accelerator.wait_for_everyone()

    def best_step(self) -> TaskStep:
        """Return a whole, unwrapped step with the best weights, on the CPU."""
        from safetensors.torch import load_file

        weights = self.accelerator.get_state_dict(self.step)  # on every process: a collective act under FSDP
        if self.state.best_step:
            weights |= load_file(self._best_weights())
        self.accelerator.wait_for_everyone()  # the first process removes the folder when it has written the model
        step: TaskStep = self.build_step() if self.is_sharded else self.accelerator.unwrap_model(self.step)
        if not self.is_sharded or self.accelerator.is_main_process:
            step.load_state_dict(weights)
        return step.cpu()
