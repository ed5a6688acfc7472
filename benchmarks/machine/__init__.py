"""Facts about the machine: what it is, the energy it uses, and its measured limits."""
