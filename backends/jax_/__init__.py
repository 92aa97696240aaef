"""JAX: steps compiled by XLA, windowed layers in a form for CPUs and one for GPUs.

From outside: `backend.backend`. May import `base`, `ownership`, `straight` and the library.
"""
