"""One run: learn, measure, keep, stop and go on.

From outside: `starting.train`, `resume`, `evaluate`; `loop.Run`, `reporter.Reporter`. May import runs, spec and data.
"""
