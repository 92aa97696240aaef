"""Code of somebody's own, as text for files: a rule, a network, a loss, a metric and so on, which leave a mark."""

MARK = "imported"  # the file that importing the text makes, in the current folder
RULE = '''
import pathlib
from ref_bioplaus import credit, initializers, network as net
from ref_bioplaus.types import Algorithm, Info, Pathway

pathlib.Path("imported").touch()


def rule(network, loss, optimizer, gain: float = 1.0, signs: bool = False):
    """Feedback alignment, its feedback `gain` times as large."""

    def init(key):
        B = initializers.feedback_params(network, (key, "feedback"))
        return initializers.new_state(network, key, optimizer, initializers.fan_in, Pathway(B))

    def learn(state, batch):
        params, B = state.forward.params, state.feedback.params
        trace, stats = net.forward(network, params, state.stats, batch.x, (state.key, "step", state.t))
        u = trace.h[-1]

        def feedback(l, delta):
            return gain * network[l].linear.transport(B[l].W, delta[l])

        delta, grads = credit.backward(network, params, trace, loss.gradient(u, batch.y), feedback)
        params, memory = optimizer.update(grads, state.forward.memory, params, network.kernels)
        info = Info(loss.value(u, batch.y), loss.output(u), trace.h, delta, grads=grads)
        return state._replace(t=state.t + 1, forward=Pathway(params, memory), stats=stats), info

    return Algorithm(init, {"learn": learn})
'''
OTHERS = '''
import pathlib
import ref_bioplaus as rb
from ref_bioplaus import metrics, modifications, optimizers
from ref_bioplaus.experiments.data import loading

pathlib.Path("imported").touch()


def network(in_shape, classes, units: int = 5):
    return rb.chain(in_shape, rb.flatten, (rb.dense(units), rb.bias, rb.tanh), (rb.dense(classes), rb.bias))


def loss():
    return rb.losses.squared_error()


finished_loss = rb.losses.squared_error()


def half(eta, share: float = 0.5):
    """Gradient descent at half the rate."""
    return optimizers.sgd(eta * share)


def still(optimizer):
    """A modification that leaves everything as it is."""
    return modifications.constant_norm(optimizer)


def norms(forward):
    """The angle of every W to itself."""
    return metrics.matrix_angles(forward, forward)


def images():
    return loading.load("embedded")


def upside_down(image, words):
    return image[::-1]


number = 5
'''
