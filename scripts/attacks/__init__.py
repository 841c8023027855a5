"""What the attacks reach, each measured by one command."""
