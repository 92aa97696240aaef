"""Every algorithm on dense networks, and every first state, computed again from FORMAT.md: what the page says suffices.

Plain NumPy on names and arrays of files; no line of the library computes here.
"""

import json
import math
import zlib

import numpy as np
import pytest

from ref_bioplaus.conformance.files import exchange
from ref_bioplaus.registry import ROWS

P, B_PATH = "state/forward/params", "state/feedback/params"


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """Every row on dense networks, one of the weight mirror's convolutions, and every first state."""
    folder = tmp_path_factory.mktemp("steps")
    for name, pattern in (("steps", "1/*/FC/*"), ("mirror", "0/feedback_grads/weight-mirror/conv/*")):
        exchange.emit(folder / name, pattern)
    exchange.emit(folder / "init", "0/init/*")
    return folder


def read(folder):
    """Rows with their layers and inputs."""
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "outputs").mkdir(exist_ok=True)
    for row in content["cases"]:
        with np.load(folder / "inputs" / row["file"]) as archive:
            yield row, content["models"][row["model"]]["layers"], {name: archive[name] for name in archive.files}


def judged(folder):
    """All verdicts, by id."""
    return {v.id: v for v in exchange.verdicts(folder)}


def softmax(u):
    """By rows."""
    e = np.exp(u - np.max(u, axis=1, keepdims=True))
    return e / np.sum(e, axis=1, keepdims=True)


class Step:
    """A step on a dense network: what is given, and what is found."""

    def __init__(self, row, layers, given):
        self.row, self.layers, self.given, self.out = row, layers, given, {}
        self.rule, self.options = row["algorithm"]["name"], row["algorithm"]["options"]
        self.L, self.N = len(layers) - 1, row["batch"]

    def W(self, l):
        return self.given[f"{P}/{l}/W"]

    def B(self, l):
        return self.given.get(f"{B_PATH}/{l}/W")

    def layer(self, l, x):
        """x_l -> h_l."""
        u = x @ self.W(l).T + self.given[f"{P}/{l}/local/0/b"]
        return np.tanh(u) if len(self.layers[l]["neurons"]) > 1 else u

    def output(self, u):
        """What the loss makes of h_L."""
        if self.row["loss"]["name"] == "squared_error":
            return u
        n = self.given["batch/y"].shape[1]
        return np.concatenate([softmax(u[:, :n]), np.tanh(u[:, n:])], axis=1)

    def forward(self):
        """h, the loss and its gradient."""
        y = self.given["batch/y"]
        self.h = [self.given["batch/x"]]
        for l in range(1, self.L + 1):
            self.h.append(self.layer(l, self.h[-1]))
        u, self.out["info/output"] = self.h[-1], self.output(self.h[-1])
        n, p = y.shape[1], self.output(self.h[-1])
        if self.row["loss"]["name"] == "squared_error":
            loss, self.error = np.sum((u - y) ** 2, axis=1), 2 * (u - y)
        else:
            loss, self.error = -np.sum(y * np.log(p[:, :n]), axis=1), np.zeros_like(u)
            self.error[:, :n] = p[:, :n] - y
        self.out |= {f"info/h/{l}": h for l, h in enumerate(self.h)} | {"info/loss": loss}

    def transported(self, l, delta):
        """What the synapses of layer l deliver to h_(l-1)."""
        W, o, rule = self.W(l), self.options, self.rule.removesuffix("-batch-manhattan").removesuffix("-ei")
        by_rule = {
            "uniform": lambda: np.sign(W),
            "batch_random": lambda: self.given[f"random/magnitude/{l}"] * np.sign(W),
            "initial_magnitude": lambda: np.abs(self.B(l)) * np.sign(W),
            "strict_norm": lambda: np.sign(W) * math.sqrt(np.sum(W * W) / np.count_nonzero(W)),
            "fan_out_scale": lambda: np.sign(W) / math.sqrt(W.shape[1]),
        }
        if o.get("symmetric_output") and l == self.L or rule.startswith("backprop"):
            return delta[l] @ W
        if rule == "dfa":
            return delta[self.L] @ self.given[f"{B_PATH}/{l - 1}/B"]
        if "rule" in o:
            return delta[l] @ by_rule[o["rule"]]()
        arrived = delta[l] @ self.B(l)
        if rule == "dense-fa":
            for k in range(l + 1, self.L + 1):
                arrived = arrived + delta[k] @ self.given[f"{B_PATH}/{l - 1}/D/{k}"]
        return arrived

    def walk(self, delivered):
        """delta and gradients."""
        delta, at_h, strength = {}, self.error, self.options.get("noise_on_delta", 0)
        for l in range(self.L, 0, -1):
            delta[l] = at_h * (1 - self.h[l] ** 2) if len(self.layers[l]["neurons"]) > 1 else at_h
            taught = delta[l]
            if strength:
                taught = taught + math.sqrt(strength * np.mean(taught**2)) * self.given[f"random/delta/{l}"]
            self.out |= {f"info/delta/{l}": delta[l], f"info/grads/{l}/W": taught.T @ self.h[l - 1] / self.N,
                         f"info/grads/{l}/local/0/b": np.mean(delta[l], axis=0)}  # fmt: skip
            at_h = delivered(l, delta) if l > 1 else None

    def optimized(self, path, grads, o, modifications=()):
        """New parameters of a path, and the memory."""
        prefix = f"state/{path}/params/"
        names = [n.removeprefix(prefix) for n in self.given if n.startswith(prefix)]
        p = {n: self.given[prefix + n] for n in names}
        p = self.updated(f"state/{path}/memory", p, {n: self.out[f"info/{grads}/{n}"] for n in names}, o, modifications)
        self.out |= {prefix + n: array for n, array in p.items()}

    def updated(self, memory, p, g, o, modifications):
        """Parameters behind an optimizer and the modifications around it, the innermost first."""
        if not modifications:
            return self.bare(memory, p, g, o)
        *rest, outer = modifications
        name, own, count = outer["name"], self.given.get, self.given.get(f"{memory}/count")
        change = {
            "batch-manhattan": lambda n: np.sign(g[n]),
            "noisy-gradients": lambda n: (
                g[n] + math.sqrt(outer.get("strength", 0) * np.mean(g[n] ** 2)) * own(f"random/gradient/{n}", 0)
            ),
            "align-to-random": lambda n: g[n] + 2 * outer.get("strength", 0) * (p[n] - own(f"{memory}/V/{n}", 0)),
        }.get(name, g.get)
        g = {n: change(n) if n.endswith("/W") else array for n, array in g.items()}
        new = self.updated(memory if name == "batch-manhattan" else f"{memory}/inner", p, g, o, rest)
        for n in (n for n in new if n.endswith("/W")):
            if name == "constant-norm":
                new[n] = new[n] * own(f"{memory}/norm/{n}") / math.sqrt(np.sum(new[n] ** 2))
            elif name == "fixed-signs":
                s = own(f"{memory}/signs/{n}")
                if count >= outer["start"]:
                    new[n] = s * np.maximum(s * new[n], outer["margin"])
                else:
                    s = np.where(new[n] == 0, s, np.sign(new[n]))
                self.out[f"{memory}/signs/{n}"] = s
        if count is not None and name != "batch-manhattan":
            self.out[f"{memory}/count"] = count + 1
        return new

    def bare(self, memory, p, g, o):
        """Parameters behind sgd or adam with decay of form "paper" on weights."""
        count, eta = self.given[f"{memory}/count"], o["eta"]
        assert o.get("decay", 0) == 0 or o["form"] == "paper" and o["on"] == "weights"
        self.out[f"{memory}/count"], new = count + 1, {}
        for n, array in p.items():
            kept = array * (1 - o.get("decay", 0) if n.endswith("/W") else 1)
            if o["name"] == "adam":
                m = o["b1"] * self.given[f"{memory}/m/{n}"] + (1 - o["b1"]) * g[n]
                v = o["b2"] * self.given[f"{memory}/v/{n}"] + (1 - o["b2"]) * g[n] ** 2
                t = int(count) + 1
                new[n] = kept - eta * (m / (1 - o["b1"] ** t)) / (np.sqrt(v / (1 - o["b2"] ** t)) + o["epsilon"])
                self.out |= {f"{memory}/m/{n}": m, f"{memory}/v/{n}": v}
            elif o.get("momentum"):
                self.out[f"{memory}/v/{n}"] = v = o["momentum"] * self.given[f"{memory}/v/{n}"] + g[n]
                new[n] = kept - eta * v
            else:
                new[n] = kept - eta * g[n]
        return new

    def inverse(self, l, h):
        """g_l."""
        y = h @ self.B(l) + self.given[f"{B_PATH}/{l}/local/0/b"]
        return np.tanh(y) if len(self.layers[l - 1]["neurons"]) > 1 else y

    def targets(self):
        """Downwards."""
        y, h, L = self.given["batch/y"], [*self.h[:-1], self.out["info/output"]], self.L
        if self.rule.startswith("dtp"):
            t = {L - 1: h[L - 1] - self.options["alpha"] * self.error @ self.W(L)}
        else:
            t = {L: np.concatenate([y, h[L][:, y.shape[1] :]], axis=1)}
        for l in range(max(t), 1, -1):
            t[l - 1] = self.inverse(l, t[l])
            if self.rule != "tp":
                t[l - 1] = h[l - 1] - self.inverse(l, h[l]) + t[l - 1]
        self.out |= {f"info/targets/{l}": target for l, target in t.items()}
        return t

    def inverses(self):
        """What V and c learn by."""
        for l in (l for l in range(2, self.L + 1) if self.B(l) is not None):
            corrupted = self.h[l - 1] + self.options["noise"] * self.given[f"random/corruption/{l}"]
            above = self.layer(l, corrupted)
            above = self.output(above) if l == self.L else above
            g = self.inverse(l, above)
            delta = 2 * (g - (corrupted if self.rule.startswith("dtp") else self.h[l - 1])) * (1 - g**2)
            self.out |= {f"info/feedback_grads/{l}/W": above.T @ delta / self.N,
                         f"info/feedback_grads/{l}/local/0/b": np.mean(delta, axis=0)}  # fmt: skip

    def mirror(self):
        """B alone."""
        o, mode = self.options, self.row["mode"]
        for l in (l for l in range(2, self.L + 1) if mode in ("mirror", f"mirror_{l}")):
            y = o["sigma"] * self.given[f"random/mirror/{l}"]
            u = y @ self.W(l).T + (0 if o["bias_blocking"] else self.given[f"{P}/{l}/local/0/b"])
            response = np.tanh(u) if len(self.layers[l]["neurons"]) > 1 else u
            self.out[f"info/feedback_grads/{l}/W"] = moved = response.T @ y / self.N
            self.out[f"{B_PATH}/{l}/W"] = (1 - o["lambda_B"]) * self.B(l) + o["eta_B"] * moved

    def run(self):
        """All outputs."""
        mode, row = self.row["mode"], self.row
        self.out["state/t"] = self.given["state/t"] + 1
        if mode.startswith("mirror"):
            self.mirror()
            return self.out
        self.forward()
        if "tp" in self.rule:
            if mode != "inverse":
                t = self.targets()
                self.walk(lambda l, delta: 2 * (self.h[l - 1] - t[l - 1]))
                self.optimized("forward", "grads", row["optimizer"])
                n = self.given["batch/y"].shape[1]
                for name in (f"{P}/{self.L}/W", f"{P}/{self.L}/local/0/b") if self.rule.startswith("ao") else ():
                    self.out[name] = np.concatenate([self.out[name][:n], self.given[name][n:]])
            if mode != "forward":
                self.inverses()
                self.optimized("feedback", "feedback_grads", row["inverse_optimizer"])
            if mode == "inverse":
                self.out = {n: a for n, a in self.out.items() if n not in ("info/loss", "info/output")}
            return self.out
        self.walk(self.transported)
        self.optimized("forward", "grads", row["optimizer"], row["algorithm"]["modifications"])
        if self.rule == "kolen-pollack":
            self.out |= {f"info/feedback_grads/{l}/W": self.out[f"info/grads/{l}/W"] for l in range(2, self.L + 1)}
            self.optimized("feedback", "feedback_grads", row["optimizer"])
        return self.out


def test_every_algorithm_on_dense_networks_is_what_the_page_says(steps):
    rows = set()
    for row, layers, given in read(steps / "steps"):
        if row["case"].count("/") == 1:
            out = Step(row, layers, given).run()
            np.savez(steps / "steps" / "outputs" / row["file"], case_sha256=row["case_sha256"], **out)
            rows.add(row["algorithm"]["name"])
    found = judged(steps / "steps")
    assert rows == {row.name for row in ROWS}
    wrong = [f"{v.id}: {v.text}" for v in found.values() if v.state not in ("pass", "not run")]
    assert not wrong, "\n".join(wrong)
    assert sum(v.state == "pass" for v in found.values()) >= 30
    for v in found.values():
        assert v.state == "not run" or all(name.startswith("state/") for name in v.missing), v


def test_a_convolutions_mirror_is_averaged_over_the_windows_that_read_a_pixel(steps):
    ((row, layers, given),) = read(steps / "mirror")
    out, o = {}, row["algorithm"]["options"]
    for l in (l for l in range(2, len(layers)) if f"random/mirror/{l}" in given):
        layer = layers[l]
        W, y, s = given[f"{P}/{l}/W"], o["sigma"] * given[f"random/mirror/{l}"], layer["synapses"]
        if s["kind"] == "dense":
            u, count = y @ W.T, 1
            sums = lambda r, y=y: r.T @ y  # noqa: E731
        else:
            (kh, kw), (sh, sw), p = s["kernel"], s["stride"], s["padding"]
            padded, inside = (
                np.pad(a, ((0, 0), (p["top"], p["bottom"]), (p["left"], p["right"]), (0, 0)))
                for a in (y, np.ones((1, *y.shape[1:3], 1)))
            )
            height, width, _ = s["out_shape"]
            places = [(i, j) for i in range(kh) for j in range(kw)]

            def seen(a, i, j, sh=sh, sw=sw, height=height, width=width):
                return a[:, i : i + sh * (height - 1) + 1 : sh, j : j + sw * (width - 1) + 1 : sw]

            u = sum(seen(padded, i, j) @ W[i, j] for i, j in places)
            count = np.array([np.sum(seen(inside, i, j)) for i, j in places]).reshape(kh, kw, 1, 1)
            assert count.min() < count.max()

            def sums(r, padded=padded, places=places, shape=W.shape, seen=seen):
                return np.array([np.einsum("nrci,nrco->io", seen(padded, i, j), r) for i, j in places]).reshape(shape)

        for i, part in enumerate(layer["neurons"]):
            u = u + given[f"{P}/{l}/local/{i}/b"] if part["kind"] == "bias" else u
            if part["kind"] == "nonlinearity":
                u = {"relu": lambda v: np.maximum(v, 0), "sigmoid": lambda v: 1 / (1 + np.exp(-v))}[part["name"]](u)
        out[f"mirror/response/{l}"] = u
        out[f"info/feedback_grads/{l}/W"] = sums(u) / count / row["batch"]
    np.savez(steps / "mirror" / "outputs" / row["file"], **out)
    (found,) = judged(steps / "mirror").values()
    assert found.state == "pass" and found.missing == (), found


# First states


def threefry(key, x0, x1):
    """Threefry-2x32-20 on uint32 arrays."""
    k0, k1 = (np.uint32(int(word) & 0xFFFFFFFF) for word in key)
    keys = (k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA))
    with np.errstate(over="ignore"):
        x0, x1 = np.asarray(x0, np.uint32) + k0, np.asarray(x1, np.uint32) + k1
        for i in range(5):
            for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
                x0 = x0 + x1
                x1 = (x1 << np.uint32(turn) | x1 >> np.uint32(32 - turn)) ^ x0
            x0, x1 = x0 + keys[(i + 1) % 3], x1 + keys[(i + 2) % 3] + np.uint32(i + 1)
    return x0, x1


def key_at(root, text):
    """The key at an address without a time."""
    return [int(word[0]) for word in threefry(root, [0], [zlib.crc32(text.encode())])]


def normal(root, text, shape, table):
    """Normal numbers at an address."""
    high, low = threefry(key_at(root, text), np.zeros(math.prod(shape), np.uint32), np.arange(math.prod(shape)))
    steps = table[high >> 18] + table[low >> 18]
    return ((2.0 * steps + 1 - 2.0 * (low & 1)) * 2.0**-21).reshape(shape)


def fans(s):
    """n_in, n_out."""
    if s["kind"] == "dense":
        return s["n_in"], s["n_out"]
    kh, kw = s["kernel"]
    return kh * kw * s["in_shape"][2], kh * kw * s["channels"]


def there(s):
    """1 where a weight can read a pixel, 0 where it only ever reads padding."""
    if s["kind"] != "local connection":
        return 1.0
    (H, W, C), (kh, kw), (sh, sw), p = s["in_shape"], s["kernel"], s["stride"], s["padding"]
    height, width, O = s["out_shape"]
    rows, cols = (
        np.array([[0 <= r * stride + i - before < n for i in range(k)] for r in range(m)], np.float64)
        for n, k, stride, before, m in ((H, kh, sh, p["top"], height), (W, kw, sw, p["left"], width))
    )
    inside = rows[:, None, :, None] * cols[None, :, None, :]
    return np.broadcast_to(inside[..., None, None], (height, width, kh, kw, C, O)).reshape(s["weight_shape"])


def first_state(row, layers, given, table, outputs):
    """Every array of a first state, by the names that are asked for."""
    root, found = given["state/key"], {}

    def std(which, n_in, n_out):
        word = row["initializers"][which]
        return {"fan_in": n_in**-0.5, "fan_out": n_out**-0.5, "glorot_normal": (2 / (n_in + n_out)) ** 0.5}[word]

    def weights(name):
        l = int(name.split("/")[3])
        s = layers[l].get("synapses")
        size = math.prod(layers[l]["out_shape"])
        if name.startswith(P):
            return normal(root, f"forward/{l}", s["weight_shape"], table) * std("initializer", *fans(s)) * there(s)
        if name.endswith("/B"):
            shape = (layers[-1]["out_shape"][0], *layers[l]["out_shape"])
            return normal(root, f"feedback/{l}", shape, table) * std("feedback_initializer", size, shape[0])
        if "/D/" in name:
            k = int(name.rpartition("/")[2])
            shape = (*layers[k]["synapses"]["out_shape"], *layers[l]["out_shape"])
            deviation = std("dense_initializer", size, math.prod(layers[k]["synapses"]["out_shape"]))
            return normal(root, f"dense/{l}/{k}", shape, table) * deviation
        which = "inverse_initializer" if "inverse_initializer" in row["initializers"] else "feedback_initializer"
        n_in, n_out = fans(s) if which == "feedback_initializer" else reversed(fans(s))
        return normal(root, f"feedback/{l}", s["weight_shape"], table) * std(which, n_in, n_out) * there(s)

    for name, told in outputs.items():
        last, W = name.rpartition("/")[2], name.split("/")
        if "/params/" in name and (last == "W" or "/B" in name or "/D/" in name):
            found[name] = weights(name)
        elif name == "state/key":
            found[name] = root
        elif last == "key":
            found[name] = np.array(key_at(root, "optimizer"), np.uint32).view(np.int32)
        elif "/memory/" in name and {"V", "norm", "signs"} & {*W}:
            l = W[-2]
            own = weights(f"{P}/{l}/W")
            if "V" in W:
                drawn = normal(root, f"optimizer/align_to_random/{l}", own.shape, table)
                found[name] = drawn * math.sqrt(np.mean(own * own))
            else:
                found[name] = math.sqrt(np.sum(own * own)) if "norm" in W else np.where(own < 0, -1.0, 1.0)
        else:
            found[name] = np.full(told["shape"], 1.0 if last in ("gamma", "var") and "/memory/" not in name else 0.0)
    return found


def test_every_first_state_is_what_the_page_says(steps):
    folder, count = steps / "init", 0
    table = np.load(folder / "inputs" / "normal_table.npz")["normal_table"].astype(np.int64)
    for row, layers, given in read(folder):
        out = first_state(row, layers, given, table, row["outputs"])
        np.savez(folder / "outputs" / row["file"], case_sha256=row["case_sha256"], **out)
        count += 1
    found = judged(folder)
    wrong = [f"{v.id}: {v.text}" for v in found.values() if v.state != "pass"]
    assert not wrong, "\n".join(wrong)
    assert count > 90 and all(v.missing == () for v in found.values())
