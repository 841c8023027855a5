"""What attacks achieve, measured: a command a figure."""
