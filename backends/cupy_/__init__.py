"""CuPy: kernels that NVRTC compiles, and torch's convolutions on the same memory where they are asked for.

From outside: `backend.backend`. May import `base`, `ownership`, `straight` and the library.
"""
