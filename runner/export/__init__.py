"""
Datasets from runs: folders of videos, tar shards and Parquet files that the usual libraries load.

`plan` writes down what belongs to the dataset, `rows` has its columns, one module per format writes files from rows,
and `dataset` puts everything under its final name at once. Nothing here changes a run.
"""
