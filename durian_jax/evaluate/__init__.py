"""Scoring: cases and predictions in, a report with intervals and baselines out."""
