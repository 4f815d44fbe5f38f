"""Training state: which parameters train, the optimizer over them, and their moving average."""

import re

import flax
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from input_pipeline.errors import InputError


@flax.struct.dataclass
class TrainState:
    """Everything that a training step changes, plus the frozen parameters it reads.

    Attributes:
      step: int32 scalar, steps taken.
      trained, frozen: parameter trees with disjoint leaves, float32.
      opt_state: optimizer state of `trained`.
      ema: exponential moving average of `trained`, float32.
      skipped: int32 [2], steps that changed nothing because the loss or the gradient was not
        finite: in all, and in a row up to now.
    """

    step: jax.Array
    trained: dict
    frozen: dict
    opt_state: optax.OptState
    ema: dict
    skipped: jax.Array


def partition(params: dict, trainable: tuple[str, ...], frozen: tuple[str, ...]) -> tuple:
    """Splits a parameter tree into (trained, frozen) trees.

    A leaf trains if its path, such as "denoiser/conv_in/kernel", matches one of the `trainable`
    regular expressions from its start, and none of the `frozen` ones.

    Raises:
      InputError: a pattern matches no leaf, or nothing trains.
    """
    leaves = flatten_dict(params, sep="/")
    for pattern in (*trainable, *frozen):
        if not any(re.match(pattern, name) for name in leaves):
            raise InputError(
                f"stage pattern {pattern!r} matches no parameter: the top levels are "
                f"{', '.join(sorted(params))}"
            )

    def trains(name: str) -> bool:
        return any(re.match(p, name) for p in trainable) and not any(
            re.match(p, name) for p in frozen
        )

    trained = {name: leaf for name, leaf in leaves.items() if trains(name)}
    rest = {name: leaf for name, leaf in leaves.items() if not trains(name)}
    if not trained:
        raise InputError("no parameter trains: widen stage.trainable or narrow stage.frozen")
    return unflatten_dict(trained, sep="/"), unflatten_dict(rest, sep="/")


def learning_rates(
    steps: int, learning_rate: float, warmup_steps: int, decay_steps: int
) -> optax.Schedule:
    """Learning rate by step: linear warm-up, constant, half a cosine to 0 over the last steps.

    Args:
      steps: of the whole run. decay_steps: of those the last, in which it falls; 0 for none.

    Raises:
      InputError: warm-up and decay are longer than the run.
    """
    if decay_steps and warmup_steps + decay_steps > steps:
        raise InputError(
            f"config: optimizer.warmup_steps={warmup_steps} and decay_steps={decay_steps} are more "
            f"than steps={steps}: shorten them"
        )
    rise = optax.linear_schedule(learning_rate / (warmup_steps + 1), learning_rate, warmup_steps)
    if not decay_steps:
        return rise
    fall = optax.cosine_decay_schedule(learning_rate, decay_steps)
    return optax.join_schedules([rise, fall], [steps - decay_steps])


def make_optimizer(
    steps: int,
    learning_rate: float,
    warmup_steps: int,
    weight_decay: float,
    clip_norm: float,
    decay_steps: int = 0,
    beta2: float = 0.999,
) -> optax.GradientTransformation:
    """AdamW behind a clipped global norm, at the rates of `learning_rates`.

    Vectors (biases and norms) do not decay. beta2: decay of the mean squared gradient.
    """
    return optax.chain(
        clip(clip_norm),
        optax.adamw(
            learning_rates(steps, learning_rate, warmup_steps, decay_steps),
            b2=beta2,
            weight_decay=weight_decay,
            mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
        ),
    )


def clip(limit: float) -> optax.GradientTransformation:
    """Scales gradients whose global norm is above the limit, > 0, down to it.

    `optax.clip_by_global_norm` with the norm of `global_norm`.
    """

    def scale(grads: dict, params: dict | None = None) -> dict:
        del params
        factor = limit / jnp.maximum(global_norm(grads), limit)
        return jax.tree.map(lambda leaf: leaf * factor, grads)

    return optax.stateless(scale)


def global_norm(grads: dict) -> jax.Array:
    """The L2 norm over all leaves, float32 scalar.

    Written as one sum it takes XLA's CPU compiler a time that grows with more than the square of
    the number of leaves, minutes for three U-Nets: it fuses the sums of all leaves into one kernel.
    It fuses nothing into a loop.
    """
    squares = jnp.stack([jnp.square(leaf).sum() for leaf in jax.tree.leaves(grads)])
    odd = jnp.arange(len(squares)) % 2

    def add(half: jax.Array, total: jax.Array) -> jax.Array:
        return total + jnp.where(odd == half, squares, 0).sum()

    return jnp.sqrt(jax.lax.fori_loop(0, 2, add, 0.0))


def init_state(
    params: dict,
    trainable: tuple[str, ...],
    frozen: tuple[str, ...],
    optimizer: optax.GradientTransformation,
) -> TrainState:
    """A state at step 0; the patterns are those of `partition`."""
    trained, frozen = partition(params, trainable, frozen)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trained=trained,
        frozen=frozen,
        opt_state=optimizer.init(trained),
        ema=jax.tree.map(jnp.copy, trained),
        skipped=jnp.zeros(2, jnp.int32),
    )


def apply_gradients(
    state: TrainState,
    grads: dict,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    finite: jax.Array,
) -> TrainState:
    """One optimizer step. The average warms up: its decay is at most (1 + step) / (10 + step).

    Args:
      finite: bool scalar; False counts the step as skipped and leaves the rest as it was.
    """
    updates, opt_state = optimizer.update(grads, state.opt_state, state.trained)
    trained = optax.apply_updates(state.trained, updates)
    decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
    ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, trained)
    changed = {"trained": trained, "opt_state": opt_state, "ema": ema}
    kept = {name: getattr(state, name) for name in changed}
    changed = jax.tree.map(lambda new, old: jnp.where(finite, new, old), changed, kept)
    total, row = state.skipped
    skipped = jnp.stack([jnp.where(finite, total, total + 1), jnp.where(finite, 0, row + 1)])
    return state.replace(step=state.step + 1, skipped=skipped, **changed)


def describe(state: TrainState) -> str:
    """A table of the parameters, trained and frozen: a row for each `group_name`, then for all."""
    counts = {}
    for column, tree in enumerate((state.trained, state.frozen)):
        for name, leaf in flatten_dict(tree, sep="/").items():
            row = counts.setdefault(group_name(name), [0, 0])
            row[column] += leaf.size
    total = [sum(row[0] for row in counts.values()), sum(row[1] for row in counts.values())]
    lines = [f"{'parameters':<34}{'trained':>16}{'frozen':>16}"]
    for name, (trained, frozen) in [*sorted(counts.items()), ("all", total)]:
        lines.append(f"{name:<34}{trained:>16,}{frozen:>16,}")
    return "\n".join(lines)


def group_name(name: str) -> str:
    """The module a parameter counts to; what joins the frames is one of its own in each network."""
    module = name.split("/")[0]
    if "/video_attn/" in name:
        return f"{module} (video attention)"
    return f"{module} (motion modules)" if "/motion_modules" in name else module
