"""PyTorch, without autograd: how a step becomes a straight line of torch's own calls, on one page.

1. A step is Python; its calls on tensors are a straight line, as nothing in it looks at a value. `backend.py` asks for
   the line where native kernels are wanted, `kernels.py`, `products.py` and `optimizers.py` say what each call is.
2. `capture.py` records the line once for every structure, shape, stride, dtype and device, with torch.fx, on aliases of
   the caller's tensors. What the step closes over is memory of somebody else, and stays so.
3. `trees.py` tells which line fits: it walks through the arguments and back as generated code does.
4. `passes.py` makes the line shorter, and changes no number: it drops, shares and folds calls, moves updates of the
   state to the end, and writes over operands that nobody reads any more.
5. `memory.py` says what may be written over: of every piece of memory who made it (an argument, a donated argument, a
   constant, the step), who reads it last, and whether it leaves the line. Only memory that the step made, or that was
   donated by its only owner, is written to; what leaves the line leaves it alone.
6. `graphs.py`: on a GPU the line is recorded once more, as a CUDA graph in memory of its own, and replayed.
7. `loops.py` and `random.py` hide loops and random bits in single calls of the line.

Beside it `interop.py` reads Modules of torch's into networks and writes weights back, with `kinds.py`, which says what
layer a Module is.

From outside: `backend.backend`; `interop`, as `rb.interop`. May import `base`, `ownership`, `stacks`, `straight`, the
library and NumPy's backend.
"""
