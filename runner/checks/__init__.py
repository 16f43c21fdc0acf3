"""
Checks of downloaded videos: what they show, in processes of their own, and what the user's command reports on them.

A check comes after a job's success. It costs nothing, changes no state, and never keeps a job from being submitted.
"""
