"""What a video is worth: pure functions of frames and keypoints."""
