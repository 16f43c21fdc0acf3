"""
One step of one job: submit it, ask for its task, fetch its assets.

Each step is a coroutine that ends with the job's change handed to the store.
When a step is taken, and what its outcome means for the others, is the engine's.
"""
