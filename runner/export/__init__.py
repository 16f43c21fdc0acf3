"""
Datasets from runs: folders of videos, tar shards and Parquet files that the usual libraries load.

`selection` decides what belongs to the dataset, `columns` has its columns, `split_files` writes the files of each format,
and `dataset` puts everything under its final name at once. Nothing here changes a run.
"""
