"""JAX: native kernels, compiled by XLA."""
