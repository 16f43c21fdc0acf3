"""
Checks of downloaded videos: what they show, in processes of their own, and what a command of the user's says of them.

A check comes after a job's success. It costs nothing, changes no state, and never keeps a job from being submitted.
"""
