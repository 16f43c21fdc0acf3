"""What callers rely on, held against each fake and the real thing that it stands for."""
