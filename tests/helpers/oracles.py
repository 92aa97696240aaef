"""Automatic differentiation through the project's own forward pass: the oracle of the manual backward passes.

This is the only place, with the test files that use it, where anything is differentiated automatically.
"""

import numpy as np

from ref_bioplaus.experiments.demo.agreement import relative
from ref_bioplaus.network import forward
from ref_bioplaus.tree import leaves, named_leaves, tree_map, unflatten

QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # it runs once


def torch_gradients(network, loss, state, x, y):
    """Gradients of the mean loss by torch.autograd, as a NumPy tree in the shape of the parameters."""
    import torch

    to_torch = lambda a: torch.tensor(np.array(a))  # noqa: E731
    params = tree_map(lambda p: to_torch(p).requires_grad_(), state.forward.params)
    stats, key, t = (tree_map(to_torch, part) for part in (state.stats, state.key, state.t))
    trace, _ = forward(network, params, stats, to_torch(x), (key, "step", t))
    loss.value(trace.h[-1], to_torch(y)).mean().backward()
    return tree_map(lambda p: np.zeros(p.shape) if p.grad is None else p.grad.numpy(), params)


def jax_gradients(network, loss, state, x, y):
    """Gradients of the mean loss by jax.grad, as a NumPy tree in the shape of the parameters."""
    import jax
    import jax.numpy as jnp

    state = tree_map(jnp.asarray, state)

    def objective(params):
        trace, _ = forward(network, params, state.stats, jnp.asarray(x), (state.key, "step", state.t))
        return jnp.mean(loss.value(trace.h[-1], jnp.asarray(y)))

    grads = jax.jit(jax.grad(objective), compiler_options=QUICKLY)(state.forward.params)
    return unflatten(state.forward.params, [np.asarray(g) for g in leaves(grads)])


def worst_difference(expected, found):
    """The largest difference of two trees of gradients, tensor by tensor, and where it is."""
    expected, found = dict(named_leaves(expected)), dict(named_leaves(found))
    assert expected.keys() == found.keys()
    largest = max(np.max(np.abs(e), initial=0.0) for e in expected.values())
    differences = {name: relative(np.asarray(e), np.asarray(found[name]), largest) for name, e in expected.items()}
    worst = max(differences, key=differences.__getitem__)
    return differences[worst], worst
