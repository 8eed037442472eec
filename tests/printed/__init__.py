"""What is printed is true: README, examples, benchmarks."""
