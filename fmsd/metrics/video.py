"""From frames to videos: a video's score is the mean of its frames' probabilities."""

import polars as pl


def by_video(frames: pl.DataFrame) -> pl.DataFrame:
    """One row per video: its id, its label and the mean of `score`. Needs the columns video, label and score."""
    return frames.group_by("video", maintain_order=True).agg(pl.col("label").first(), pl.col("score").mean())
