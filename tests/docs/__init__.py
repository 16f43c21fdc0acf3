"""The pages against the code: generated parts are current, examples and commands run, links and paths exist."""
