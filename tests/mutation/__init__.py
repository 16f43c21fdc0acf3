"""
Mutation testing: small faults are put into the code one at a time, and each should make a test fail.

``python -m tests.mutation --help``. A run takes minutes to hours, so that no other test starts it.
A mutant that survives is a promise that no test holds, code that nothing needs, or an equivalent:
a change that nobody could notice, such as another wording, another speed, or a case that can't occur.
"""
