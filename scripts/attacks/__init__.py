"""What attacks come to, measured outside a federation: every figure beside the command that prints it."""
