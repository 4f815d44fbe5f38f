from fractions import Fraction

import av
import numpy as np
import pytest

from input_pipeline.media import sound, video


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


def written(tmp_path, source, name="out.mp4", count=30):
    """A picture for as long as the sound may last, with the sound of a clip."""
    path = tmp_path / name
    frames = [np.full((64, 64, 3), 90, np.uint8)] * count
    video.write_video(path, frames, Fraction(25), audio_from=source)
    return path


def codecs(path):
    with av.open(str(path)) as container:
        return [stream.codec_context.name for stream in container.streams.audio]


@pytest.mark.parametrize("tracks", [1, 2])
def test_sound_that_nothing_decodes_is_left_out_and_noted(tmp_path, film, grey_steps, beep, tracks):
    path = tmp_path / "spatial.mp4"
    film(path, grey_steps(20), sounds=[beep(0.4)] * tracks)
    path.write_bytes(path.read_bytes().replace(b"mp4a", b"apac").replace(b"esds", b"free"))
    chosen = sound.choose(path)
    assert chosen.track is None and "decoded, the result is silent" in chosen.note
    assert codecs(written(tmp_path, path)) == []
    assert len(list(video.read_frames(path))) == 20


def test_of_several_tracks_the_first_that_can_be_heard_is_kept(
    tmp_path, film, grey_steps, beep, heard
):
    voice, silence = beep(0.4), 0 * beep(0.4)
    cases = (([silence, voice], 2), ([voice, beep(0.8)], 1), ([voice, silence], 1))
    for tracks, number in cases:
        path = tmp_path / "tracks.mkv"
        film(path, grey_steps(20), sounds=tracks)
        chosen = sound.choose(path)
        assert chosen.track == number - 1
        assert chosen.note.startswith(f"2 sound tracks, number {number} is kept")
        assert heard(written(tmp_path, path)) == pytest.approx(0.4, abs=0.05)
    film(path, grey_steps(20), sounds=[silence, silence])
    assert sound.choose(path).note == "2 sound tracks, number 1 is kept (number 2 is silent)"


def test_one_good_track_needs_no_note(talking_head_clips):
    assert sound.choose(talking_head_clips / "plain.mp4") == sound.Choice(0)
    assert sound.choose(talking_head_clips / "cool.mp4") == sound.Choice(None)


@pytest.mark.parametrize(
    ("source", "codec", "out", "kept"),
    [
        ("a.ts", "aac", "out.mp4", ["aac"]),
        ("a.mkv", "libopus", "out.webm", ["opus"]),
        ("a.mkv", "aac", "out.webm", ["opus"]),
        ("a.mkv", "flac", "out.mov", ["aac"]),
        ("a.mov", "pcm_s16le", "out.mp4", ["aac"]),
        ("a.mp4", "aac", "out.gif", []),
    ],
)
def test_each_container_gets_a_codec_that_it_takes(
    tmp_path, film, grey_steps, beep, heard, source, codec, out, kept
):
    film(tmp_path / source, grey_steps(30), sounds=[beep(0.4)], sound_codec=codec)
    path = written(tmp_path, tmp_path / source, out)
    assert codecs(path) == kept
    if kept:
        assert heard(path) == pytest.approx(0.4, abs=0.05)


def test_gaps_in_the_sound_stay_gaps(tmp_path, film, grey_steps, beep, heard):
    whole, gappy = tmp_path / "whole.mkv", tmp_path / "gappy.mkv"
    film(whole, grey_steps(30), sounds=[beep(1.0)], sound_codec="flac")
    with av.open(str(whole)) as source, av.open(str(gappy), "w") as output:
        pairs = {stream: output.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            lost = (
                packet.stream.type == "audio" and 0.2 < (packet.pts or 0) * packet.time_base < 0.7
            )
            if packet.size and not lost:
                packet.stream = pairs[packet.stream]
                output.mux(packet)
    assert heard(written(tmp_path, gappy)) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("codec", "second"), [("aac", "mono"), ("mp2", "mono"), ("mp2", "stereo")])
def test_joined_recordings_keep_their_sound(tmp_path, film, grey_steps, beep, heard, codec, second):
    # As `cat a.ts b.ts` joins them: the second begins at 0 again, and may have other channels.
    parts = []
    for name, layout in (("a.ts", "mono"), ("b.ts", second)):
        film(tmp_path / name, grey_steps(15), sounds=[beep(0.2)], sound_codec=codec, layout=layout)
        parts.append((tmp_path / name).read_bytes())
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    path = written(tmp_path, tmp_path / "joined.ts", count=100)
    assert codecs(path) == ["aac"]
    assert heard(path) == pytest.approx(0.2, abs=0.05)


def test_damaged_sound_is_no_reason_to_fail(tmp_path, film, grey_steps, beep):
    path = tmp_path / "a.mkv"
    film(path, grey_steps(30), sounds=[beep(0.4)], sound_codec="flac")
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(audio=0) if p.size]
    data = bytearray(path.read_bytes())
    for place, size in places[2:5]:
        data[place + 8 : place + size] = bytes(max(0, size - 8))
    path.write_bytes(data)
    assert codecs(written(tmp_path, path)) == ["aac"]
