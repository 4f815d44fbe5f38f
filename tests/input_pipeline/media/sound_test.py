from fractions import Fraction

import av

from input_pipeline.media import video


def test_pictures_and_sound_lie_side_by_side_in_the_file(tmp_path, talking_head_clips):
    source = talking_head_clips / "plain.mp4"
    with video.VideoWriter(tmp_path / "a.mp4", Fraction(25), audio_from=source) as writer:
        for frame in video.read_frames(source):
            writer.write(frame)
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [p for p in container.demux() if p.dts is not None]
        packets.sort(key=lambda p: p.pos)
        times = {"video": 0.0, "audio": 0.0}
        for packet in packets:
            times[packet.stream.type] = float(packet.dts * packet.time_base)
            assert abs(times["video"] - times["audio"]) < 0.25
    assert min(times.values()) > 2.2
