"""What is trained on: photographs and videos with the places where people looked."""
