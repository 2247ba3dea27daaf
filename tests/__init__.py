"""Promises, by name."""

import os

# Starting a program (espeak-ng) while numpy multiplies matrices on several threads leaves the multiplication hanging
# for good: the fork takes OpenBLAS' workers away. Read when numpy is first imported, so it is said before all else.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
