"""What `benchmarks/inject.py` compares faults with: programs, and the kernel alone."""
