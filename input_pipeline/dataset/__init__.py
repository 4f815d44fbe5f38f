"""The data set on disk, and the case folders of evaluation."""
