"""
Everything that the command line can do, for programs.

`check` and `plan` look at a manifest, `run`, `resume` and `rerun` work on one,
`resolve` settles what is in doubt, `status` and `read_results` look at what is there.
"""
