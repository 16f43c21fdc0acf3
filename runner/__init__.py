"""A batch runner for paid, asynchronous video generation APIs that never pays twice."""
