"""A monitor that keeps what a training reports."""

from agents.base import Monitor


class Curves(Monitor):
    """All rows of the learning curves, and how much was said to be done."""

    def __init__(self):
        self.rows, self.fractions = [], []

    def record(self, step, values):
        self.rows.append((step, dict(values)))

    def progress(self, done):
        self.fractions.append(done)

    def curve(self, name):
        """One curve, where it was reported."""
        return [values[name] for _, values in self.rows if name in values]
