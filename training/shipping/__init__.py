"""How the weights that ship are made, and how well they do: by hand, and not in the wheel."""
