"""What watches the loop of passes: verification, timing, dumps, reproducers, bisection, progress."""
