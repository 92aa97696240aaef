"""What a user writes, for type checkers to read: test_typed.py gives it to mypy and pyright, and nothing runs it.

They must refuse the lines that end in `ignore`, each of them for that reason, and accept all others.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ref_bioplaus as rb
from ref_bioplaus import embedded, experiments
from ref_bioplaus.types import Array, Key, Loss, Optimizer, State


def rule(network: rb.Network, loss: Loss, optimizer: Optimizer, gain: float = 1.0) -> rb.Algorithm:
    """README's "Your own rule"."""

    def init(key: Key) -> State:
        B = rb.initializers.feedback_params(network, (key, "feedback"), rb.initializers.fan_out)
        return rb.initializers.new_state(network, key, optimizer, feedback=rb.Pathway(B))

    def learn(state: State, batch: rb.Batch) -> tuple[State, rb.Info]:
        params, B = state.forward.params, state.feedback.params
        trace, stats = rb.forward(network, params, state.stats, batch.x, (state.key, "step", state.t))
        u = trace.h[-1]

        def feedback(l: int, delta: dict[int, Array]) -> Array:
            return gain * network[l].linear.transport(B[l].W, delta[l])

        delta, grads = rb.backward(network, params, trace, loss.gradient(u, batch.y), feedback)
        params, memory = optimizer.update(grads, state.forward.memory, params, network.kernels)
        info = rb.Info(loss.value(u, batch.y), loss.output(u), trace.h, delta, grads=grads)
        return state._replace(t=state.t + 1, forward=rb.Pathway(params, memory), stats=stats), info

    return rb.Algorithm(init, {"learn": learn})


def network(in_shape: tuple[int, ...], classes: int) -> rb.Network:
    """Convolution, pooling and BatchNorm."""
    first = (rb.conv(8, (5, 3), stride=2), rb.batch_norm, rb.relu)
    return rb.chain(in_shape, first, rb.max_pool(2), rb.flatten, (rb.dense(classes), rb.bias))


def in_a_loop() -> dict[int, Array]:
    """Learning step by step."""
    backend = rb.backends.get("torch", device="cpu", dtype="float64")
    optimizer = rb.modifications.batch_manhattan(rb.optimizers.sgd(0.1, momentum=0.9, decay=1e-3))
    net, loss = network((28, 28, 1), 10).with_kernels(backend.kernels), rb.losses.cross_entropy()
    for algorithm in (rb.algorithms.kolen_pollack(net, loss, optimizer), rule(net, loss, optimizer, gain=0.5)):
        state, learn = algorithm.init(backend.key(seed=0)), backend.compile(algorithm.modes["learn"], donate=True)
        for x, y in embedded.batches(embedded.fashion_mnist_small(), 50, epoch=0, seed=0):
            state, info = learn(state, backend.batch(x, y))
            print(info.loss, rb.predict(net, loss, state, x))
    exported: dict[str, NDArray[Any]] = backend.export_params(net, state.forward.params, state.stats)
    print(sorted(exported), rb.models.bartunov2018.mnist_fc(width=0.5).parameter_count)
    return rb.metrics.matrix_angles(state.forward.params, state.feedback.params)


def by_the_program(images: NDArray[np.uint8]) -> list[list[tuple[str, float]]]:
    """Training with a callback, and asking what it made."""

    def callback(record: dict[str, Any]) -> bool:
        return float(record["test_error"]) < 10.0

    experiment = experiments.Experiment(algorithm=rule, algorithm_options={"gain": 0.5}, model=network, epochs=3)
    experiments.train(experiment, "runs/mine", callback=callback)
    experiments.resume("runs/mine", epochs=5)
    run = experiments.load("runs/mine", checkpoint="best", backend="jax")
    names: tuple[str, ...] = run.predict(images).names
    print(names, run.evaluate()["test_error"], run.history[-1], run.network.L, run.state.t)
    experiments.export("runs/mine", "mine.safetensors")
    return run.predict("a.png").top(3)


def of_torch(module: torch.nn.Module) -> torch.nn.Module:
    """A Module's layers and weights, and a Module of layers."""
    read, params, stats = rb.interop.from_torch(module, torch.zeros(1, 1, 28, 28))
    start: rb.initializers.Given = rb.initializers.given(params, stats)
    algorithm = rb.algorithms.backprop(read, rb.losses.squared_error(), rb.optimizers.adam(1e-3), initializer=start)
    print(algorithm.schedule(0, 0))
    return rb.interop.to_torch(read)


def judged() -> bool:
    """Is the rule right?"""

    def show(outcome: rb.testing.Outcome) -> None:
        print(outcome.state)

    result = rb.testing.check_algorithm(rule, "dense", declares=("B stays",), quick=True, callback=show)
    return result.passed


def wrong(run: experiments.Loaded, images: NDArray[np.uint8]) -> None:
    """Each line is refused before it is run."""
    rb.dens(64)  # type: ignore[attr-defined]  # pyright: ignore
    rb.dense("64")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    rb.chain(784, rb.dense(10))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    rb.chain((784,), 10)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    rb.optimizers.sgd(eta="0.1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    rb.optimizers.sgd(0.1, momentun=0.9)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    rb.models.bartunov2018.mnist_fc(width="half")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    rb.backends.get("numpy").kye(0)  # type: ignore[attr-defined]  # pyright: ignore
    rb.backends.get(dtype="float32")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    net, optimizer = rb.chain((784,), rb.dense(10)), rb.optimizers.sgd(0.1)
    rb.algorithms.backprop(net, optimizer)  # type: ignore[call-arg,arg-type]  # pyright: ignore[reportCallIssue]
    rb.algorithms.backprop(net, optimizer, optimizer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(rb.algorithms.dfa)  # type: ignore[attr-defined]  # pyright: ignore
    rb.testing.check_algorithm(net)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    experiments.trian("runs/mine")  # type: ignore[attr-defined]  # pyright: ignore
    experiments.train("runs/mine")  # type: ignore[call-arg,arg-type]  # pyright: ignore[reportCallIssue]
    experiments.Experiment(epochs="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(run.predict(images).lables)  # type: ignore[attr-defined]  # pyright: ignore
    run.predict(images).top("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
