"""NumPy: kernels of its own on blocks of memory that are used again as soon as nobody holds them, BLAS in threads.

From outside: `backend.backend`. May import `base`, `ownership`, `straight` and the library.
"""
