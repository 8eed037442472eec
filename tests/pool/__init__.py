"""The parts of the inside, each alone; and what the package's modules may import."""
