"""The Python face: what the command line and a deployment pipeline both call."""
