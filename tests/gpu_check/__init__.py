"""What can be proved of the backends for GPUs where there is no GPU.

torch makes tensors on a CUDA device that have no memory (torch_faked.py), JAX lowers for a platform that is not there
(jax_lowered.py), NVRTC compiles CuPy's kernels without a driver, and a stand-in runs the rest of CuPy's backend with
CuPy's semantics (cupy_compiled.py, standing/). Nothing of it calculates a number: see backends/README.md for what each
proves, and what it leaves to a GPU.

    python -m tests.gpu_check                  the whole product, which is kept in .gpu-check/ and goes on where it was
    python -m tests.gpu_check --report         its report, tests/gpu_check/report.json, and the page's table
"""
