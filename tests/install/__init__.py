"""What a user installs, tried in clean environments: run by make, each in its own process, outside of pytest."""
