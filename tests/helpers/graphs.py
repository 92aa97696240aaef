"""A stand-in for CUDA graphs, on a CPU."""


class Rerun:
    """Runs what it recorded again and writes the results where the first ones lay, as a graph does."""

    def __init__(self):
        self.recorded = self.replays = 0

    def warm_up(self, run):
        run()

    def record(self, run):
        self.recorded += 1
        results = run()

        def replay():
            self.replays += 1
            for place, value in zip(results, run(), strict=True):
                if place is not value:
                    place.copy_(value)

        return replay, results
