"""CuPy: native kernels that NVRTC compiles, or torch's on the same memory."""
