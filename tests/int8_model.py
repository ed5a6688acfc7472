"""The narrow network that INT8 is tested on."""

SIZE_HW = (32, 48)
WEIGHTS = "seeded:4"  # narrower ones lose too much in INT8: see the test of the gate
