"""The command `gpu`, on a CPU: what it asks first, what it writes as it goes, and what it says at the end."""

import json
import sys
import time

import pytest

from asv_bench.flops import step_flops
from asv_bench.gpu import timing
from ref_bioplaus import backends
from ref_bioplaus.gpu import plan, running, verdict, work
from ref_bioplaus.gpu.running import NoDevice, Settings
from tests.helpers.commands import command


def test_the_most_telling_questions_come_first():
    asked = list(plan.questions(on_gpu=True))
    assert [str(q) for q in asked[:2]] == [f"{n} ieee, native, compiled, level 0, 1" for n in ("torch", "jax")]
    assert asked[-1].dtype == "bfloat16"
    assert len(set(asked)) == len(asked)
    places = {q.form: i for i, q in reversed(list(enumerate(asked)))}
    assert places["torch tf32"] < places["torch float64"]
    assert {q.backend for q in asked if q.precision != "ieee"} == {"torch", "jax"}  # what CuPy does not offer
    assert "cupy with torch ieee" in plan.forms(on_gpu=True)
    assert plan.forms(on_gpu=False) == ("numpy ieee", "torch ieee", "jax ieee")
    items = list(timing.items(("torch", "jax", "cupy"), ("torch", "jax"), small=False))
    assert [str(item) for item in items[:2]] == ["native: W1, torch tf32", "native: W1, jax tf32"]
    assert len(set(items)) == len(items)
    assert {item.workload for item in items} == {f"W{i}" for i in range(1, 9)}


def test_a_question_writes_as_it_goes_and_stops_in_time(tmp_path):
    path = tmp_path / "conformance.jsonl"
    work.conforming(plan.Question("numpy", levels=(0,)), "cpu", path, 0.0, time.time() + 60, None)
    (begins, outcome, ends) = verdict.lines(path)
    assert (begins["what"], outcome["what"], ends["what"]) == ("begins", "outcome", "ends")
    assert (outcome["state"], ends["done"]) == ("pass", 1)
    assert begins["planned"] > 100
    work.conforming(plan.Question("numpy", precision="tf32"), "cpu", path, 9.0, time.time() + 60, None)
    assert "multiplies float32 in ieee, not in tf32" in verdict.lines(path)[-1]["reason"]
    found = {f.name: f for f in verdict.forms(verdict.lines(path), ("numpy ieee", "numpy tf32"), {})}
    assert found["numpy ieee"].asked == 1 and not found["numpy ieee"].trusted
    assert "not in tf32" in found["numpy tf32"].why


def test_a_row_learns_until_its_time_is_up(tmp_path):
    path = tmp_path / "learning.jsonl"
    work.learning("backprop", 0, "numpy", "cpu", None, path, 0.0, time.time() + 60, None)
    work.learning("backprop", 0, "numpy", "cpu", str(tmp_path / "nowhere"), path, 0.0, time.time() + 60, None)
    first, failed = verdict.lines(path)
    assert (first["what"], first["epoch"], failed["what"]) == ("record", 0, "failed")
    assert first["test_error"] > 50.0
    assert "nowhere" in failed["reason"]
    assert "| backprop | 1 | 0 | numpy |" in "\n".join(verdict.learned([first, failed]))


def test_times_are_written_one_by_one_and_the_rest_is_named():
    chosen = [timing.Item("native", "W1", "torch"), timing.Item("together", "W1", "numpy"),
              timing.Item("algorithm", "W1", "numpy", "ieee", "FA"), timing.Item("native", "W9", "numpy")]  # fmt: skip
    found = list(timing.lines(chosen, "cpu", True, time.time() + 60))
    records = {line.get("item"): line for line in found}
    assert [line["what"] for line in found] == ["planned", *["record"] * 3, "failed"]
    assert records["native: W1, torch ieee"]["strongest"] == "eager"
    assert records["algorithm: W1, FA, numpy ieee"]["against"] == "BP"
    page = "\n".join(verdict.speed([*found[:2], {"what": "part", "item": "where", "part": "aten::mm", "calls": 3,
                                                "ms a step": "0.1", "share": "9%"}]))  # fmt: skip
    assert "not measured: together: W1, numpy ieee; algorithm: W1, FA, numpy ieee; native: W9, numpy ieee" in page
    assert "aten::mm" in page
    timed = [line | {"item": f"{kind}: W1, jax ieee", "seconds": seconds} for line in found[1:2]
             for kind, seconds in (("usual", 2.0), ("deterministic", 2.5), ("excluding", 2.1))]  # fmt: skip
    said = ["Determinism costs +25 % of a step: W1, jax ieee.",
            "Leaving out what is not deterministic costs +5 % of a step: W1, jax ieee."]  # fmt: skip
    assert verdict.prices(timed) == [one for one in verdict.speed(timed) if "costs" in one] == said
    assert verdict.prices(found) == verdict.prices(timed[1:]) == []
    backend, W1 = backends.get("numpy"), timing.TINY["W1"]
    share = timing.share_of_peak({"seconds": 1e-3}, W1, backend, {"torch product": 1e9})["share_of_peak"]
    assert share == step_flops(W1.network(), "BP", W1) / 1e6
    prices = timing.prices(("numpy",), True, "deterministic")
    (_, priced) = timing.lines(prices, "cpu", True, time.time() + 60)
    assert priced["item"] == "deterministic: W1, numpy ieee"
    assert list(timing.lines(chosen, "cpu", True, 0.0)) == found[:1]


def test_times_need_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "asv_bench.gpu", None)
    work.timing(("numpy",), (), "cpu", True, tmp_path / "speed.jsonl", time.time() + 60, None, None)
    (failed,) = verdict.lines(tmp_path / "speed.jsonl")
    assert failed["reason"].startswith(
        "what is timed lies in asv_bench, which only a checkout with its extra `bench` has"
    )
    assert "- speed failed: what is timed" in "\n".join(verdict.speed([failed]))


def line(form, state, **more):
    return {"what": "outcome", "form": form, "id": "1/x", "mode": "compiled", "state": state, "reason": "why"} | more


def test_the_last_line_says_what_can_be_trusted(tmp_path):
    lines = [
        {"what": "begins", "form": form, "planned": n} for form, n in (("a ieee", 2), ("a tf32", 1), ("b ieee", 4))
    ]
    lines += [line("a ieee", "pass"), line("a ieee", "deviates"), line("a tf32", "fail"), line("b ieee", "pass")]
    lines += [{"what": "failed", "form": "b bf16", "reason": "no such precision"}]
    forms = verdict.forms(lines, ("a ieee", "a tf32", "b ieee", "b bf16", "c ieee", "d ieee"), {"c": "not installed"})
    said = verdict.last_line("card", forms)
    assert said == (
        "card: can be trusted with a ieee (2 checks, 1 deviate with a reason); nothing failed as far as there was time "
        "with b ieee (1 of 4 checks); not with a tf32 (1 of 1 checks fail); not measured: b bf16 (no such precision), "
        "c ieee (not installed), d ieee (no time was left)."
    )
    page = verdict.page({"card": "card"}, forms, tmp_path, said)
    assert "- a tf32: 1/x (compiled): why" in page
    (tmp_path / "cut.jsonl").write_text('{"what": "record"}\n{"what": "rec')
    assert verdict.lines(tmp_path / "cut.jsonl") == [{"what": "record"}]
    assert verdict.lines(tmp_path / "nowhere") == []


@pytest.mark.parametrize("device", ["mps", "cuda:99"])
def test_a_device_that_is_not_there_gets_one_sentence(device, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "side_by_side", here)
    out = tmp_path / "out"
    result = command("gpu", "--device", device, "--out", out, code=2)
    assert (
        f'No library that is installed computes on "{device}" (torch: device "{device}" is not there' in result.output
    )
    assert "install a library that does, or name another --device" in " ".join(result.output.split())
    assert not out.exists()


def test_why_a_backend_cannot_be_had_is_said_without_its_name(monkeypatch):
    said = {}

    def get(name, device):
        raise backends.BackendError(said[name])

    monkeypatch.setattr(work, "find_spec", lambda name: True)
    monkeypatch.setattr(backends, "get", get)
    for name, text, why in (
        ("torch", 'backend "torch": device "x" is not there', 'device "x" is not there'),
        (plan.CUPY_TORCH, 'backend "cupy" with torch needs a torch that sees a GPU', "needs a torch that sees a GPU"),
        (plan.CUPY_TORCH, 'backend "cupy" found no NVIDIA GPU', "found no NVIDIA GPU"),
    ):
        said[name] = text
        assert work.looked(name, "cuda", None) == {"why": why}


def here(function, tasks, jobs, limit, until):
    """The tasks in this process."""
    for task in tasks:
        yield task, function(*task, None), 0.0


def test_parts_and_folders_that_cannot_be(tmp_path, monkeypatch):
    assert "--only has" in command("gpu", "--only", "speed,x", code=2).output
    assert "names nothing" in command("gpu", "--only", ",", code=2).output
    monkeypatch.setattr(running, "side_by_side", here)
    (tmp_path / "file").write_text("")
    assert "cannot be written to" in command("gpu", "--device", "cpu", "--out", tmp_path / "file" / "x", code=2).output


def test_what_was_measured_is_there_when_a_part_breaks(tmp_path, monkeypatch):
    """The page and the files of a run that is stopped in its second part; the first one has the last line's answer."""
    monkeypatch.setattr(running, "side_by_side", here)

    def asked(settings, there, until):
        work.write(settings.out / "conformance.jsonl", what="begins", form="numpy ieee", planned=1)
        work.write(settings.out / "conformance.jsonl", **line("numpy ieee", "pass"))

    def stopped(settings, there, until):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "PARTS", {"conformance": asked, "speed": stopped, "learning": stopped})
    with pytest.raises(KeyboardInterrupt):
        running.run(Settings("cpu", 30.0, out=tmp_path))
    assert "can be trusted with numpy ieee (1 checks)" in (tmp_path / "gpu.md").read_text()
    assert json.loads((tmp_path / "environment.json").read_text())["device"] == "cpu"
    assert len(list(tmp_path.iterdir())) <= 8
    sentences = []
    last, sound = running.run(Settings("cpu", 30.0, ("conformance",), tmp_path), sentences.append)
    assert sound and "numpy ieee" in last
    assert sentences[0].startswith("CPU ")
    monkeypatch.setattr(running, "PARTS", {"learning": lambda settings, there, until: None})
    last, _ = running.run(Settings("cpu", 30.0, ("learning",), tmp_path))
    assert "numpy ieee (nobody asked for conformance)" in last
    with pytest.raises(NoDevice):
        running.run(Settings("cuda:99", 30.0, out=tmp_path))


@pytest.mark.slow(reason="a minute, which is what it was given; its parts are tested above")
def test_everything_small_on_a_cpu_in_a_minute(tmp_path):
    result = command("gpu", "--device", "cpu", "--seconds", "60", "--out", tmp_path)
    assert result.output.splitlines()[-1].startswith("CPU ")
    page = (tmp_path / "gpu.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## Conformance",
        "## Speed",
        "## Learning",
    ]
    assert "| numpy ieee | " in page
    assert all(str(item) in page for item in timing.items(("numpy", "torch", "jax"), ("torch", "jax"), small=True))
    assert len(list(tmp_path.iterdir())) <= 8
