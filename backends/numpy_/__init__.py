"""NumPy: native kernels on blocks of memory that are used again, products by BLAS in threads."""
