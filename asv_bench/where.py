"""Where it was measured: what decides about speed beside the code."""

import hashlib
import json
from typing import Any

import numpy as np

from ref_bioplaus.backends import Backend
from ref_bioplaus.machine.environment import cores, environment, processor, settings


def machine(learning: dict[str, Backend]) -> dict[str, str]:
    """What decides about speed, {name: text}: versions, processor, threads, BLAS and its environment variables."""
    found = environment(learning)
    found |= {"processor": processor(), "cores allowed": str(cores())}
    built: Any = np.show_config(mode="dicts")
    blas = built["Build Dependencies"]["blas"]
    found["numpy's BLAS"] = f"{blas.get('name')} {blas.get('version')}"
    try:
        from threadpoolctl import threadpool_info

        found["thread pools"] = "; ".join(
            f"{pool['internal_api']} {pool['num_threads']} threads {pool.get('architecture') or ''}".strip()
            for pool in threadpool_info()
        )
    except ImportError:
        found["thread pools"] = "not known: threadpoolctl is not installed"
    if "torch" in learning:
        import torch

        found["torch's threads"] = str(torch.get_num_threads())
        found["torch's parallel info"] = " ".join(torch.__config__.parallel_info().split())
    return found | settings()  # threadpoolctl sets one when it is imported


def environment_record(machine: dict[str, str]) -> dict[str, Any]:
    """Where records were measured, as a record of its own: {"kind": "environment", "key": ..., "machine": {...}}."""
    lasting = json.dumps({name: text for name, text in machine.items() if name != "date"}, sort_keys=True)
    return {"kind": "environment", "key": f"environment/{hashlib.sha256(lasting.encode()).hexdigest()[:8]}",
            "machine": machine}  # fmt: skip


def environments(records, measured) -> list[dict[str, Any]]:
    """Where the records were measured: {"title": what was, "machine": {name: text}}, the oldest first."""
    machines = {r["key"]: r["machine"] for r in records if r["kind"] == "environment"}
    found = []
    for key in [None, *machines]:
        mine = [r for r in measured if r.get("environment") == key]
        if mine:
            title = "; ".join(f"{kind} {', '.join(what)}" for kind, what in subjects(mine).items())
            found.append({"title": title, "machine": machines.get(key, {"environment": "not recorded"})})
    return found


def subjects(records) -> dict[str, list[str]]:
    """What was measured: {kind: ["W1 on torch: BP, FA", ...]}."""
    found: dict[str, dict[str, list[str]]] = {}
    for r in records:
        where = " on ".join(text for text in (r.get("workload"), place(r) if "backend" in r else None) if text)
        names = found.setdefault(r["kind"], {}).setdefault(where, [])
        name = next((r[field] for field in ("method", "how") if field in r), None)
        if name and name not in names:
            names.append(name)
    return {
        kind: [f"{where}: {' '.join(names)}" if names else where for where, names in places.items() if where or names]
        for kind, places in found.items()
    }


def place(r: dict[str, Any]) -> str:
    """A record's backend, with its device, precision and kernels where they are not the usual ones."""
    usual = ("cpu", "ieee", "native")
    more = [r[name] for name in ("device", "precision", "kernels") if name in r and r[name] not in usual]
    return ", ".join([r["backend"], *[word for word in more if word != r["backend"]]])
