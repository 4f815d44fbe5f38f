"""Scoring: cases and answers in, a report with intervals and baselines out."""
