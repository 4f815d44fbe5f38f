"""Inputs that several tests share: moving faces made from scikit-image's astronaut (NASA)."""

import gc
import os

# Code that runs for seconds is not worth minutes of optimising. XLA reads this when jax starts,
# here and in the processes that tests start.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
    " --xla_llvm_disable_expensive_passes=true"
)
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from skimage.data import astronaut

from input_pipeline.dataset import cases, shards
from input_pipeline.faces.landmarker import FaceLandmarker
from input_pipeline.masks import segmenters
from input_pipeline.media import video
from input_pipeline.media.pictures import write_picture

SIDE, FRAMES, FPS = 256, 60, 25
# Colour matrices that make four "people" out of one; every other one is mirrored, too.
PEOPLE = {
    "plain": np.eye(3),
    "cool": np.array([[0.7, 0.1, 0.0], [0.0, 0.8, 0.1], [0.1, 0.2, 0.9]]),
    "warm": np.array([[1.0, 0.2, 0.0], [0.1, 0.7, 0.0], [0.0, 0.1, 0.5]]),
    "dark": np.array([[0.5, 0.1, 0.0], [0.1, 0.4, 0.1], [0.1, 0.1, 0.5]]),
}


def talking_frames(colours=PEOPLE["plain"], mirrored=False, phase=0.0, count=FRAMES):
    """Yields uint8 [256, 256, 3]: the head sways and nods, the mouth opens and closes."""
    portrait = np.ascontiguousarray(astronaut()[:320, 64:384])
    portrait = np.clip(portrait @ colours.T, 0, 255).astype(np.uint8)
    if mirrored:
        portrait = np.ascontiguousarray(portrait[:, ::-1])
    y, x = np.mgrid[:320, :320].astype(np.float32)
    # The mouth of the picture, mirrored with it.
    mouth_x, mouth_y = (319 - 162 if mirrored else 162), 163
    near_mouth = np.exp(-(((x - mouth_x) / 22) ** 2) - ((y - mouth_y - 8) / 16) ** 2)
    for i in range(count):
        angle = 2 * np.pi * i / 30 + phase
        opened = np.float32(5 * np.sin(2 * angle)) * near_mouth
        talking = cv2.remap(portrait, x, y - opened, cv2.INTER_LINEAR)
        turn = cv2.getRotationMatrix2D((160, 200), 4 * np.sin(angle), SIDE / 320)
        turn[:, 2] += (SIDE - 320) / 2 + np.array([6 * np.cos(angle), 3 * np.sin(angle)])
        yield cv2.warpAffine(talking, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)


def add_tone(silent, path):
    """Copies a clip and gives it a 440 Hz AAC track of the same length."""
    rate = 48_000
    with av.open(str(silent)) as source, av.open(str(path), "w") as output:
        picture = output.add_stream_from_template(source.streams.video[0])
        sound = output.add_stream("aac", rate=rate, layout="mono")
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = picture
                output.mux(packet)
        wave = np.sin(2 * np.pi * 440 * np.arange(rate * FRAMES // FPS) / rate).astype(np.float32)
        for start in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024] / 2, "fltp", "mono")
            frame.sample_rate, frame.pts = rate, start
            output.mux(sound.encode(frame))
        output.mux(sound.encode())


def pytest_configure():
    # Tracing makes objects by the million, few of them in reference cycles: to search for those
    # after every 700 took a third of its time.
    gc.set_threshold(100_000, 50, 50)


@pytest.fixture(scope="session")
def fill():
    """`parameters.fill`; jax starts with the first test that asks for it."""
    from tests import parameters

    return parameters.fill


@pytest.fixture(scope="session")
def talking_head():
    """The function `talking_frames`, for clips of a test's own."""
    return talking_frames


@pytest.fixture(scope="session")
def talking_head_clips(tmp_path_factory):
    """Folder of four clips (60 frames, 25 fps, 256 x 256) and labels.csv; "plain" has sound."""
    folder = tmp_path_factory.mktemp("clips")
    rows = ["file,hair,glasses,beard,hat,identity"]
    for number, (name, colours) in enumerate(PEOPLE.items()):
        frames = talking_frames(colours, mirrored=number % 2 == 1, phase=number)
        path = folder / f"{name}.mp4"
        video.write_video(path, frames, Fraction(FPS))
        rows.append(f"{name}.mp4,long,{'yes' if name == 'cool' else 'no'},no,no,person {number}")
    silent = (folder / "plain.mp4").rename(folder / "silent.tmp")
    add_tone(silent, folder / "plain.mp4")
    silent.unlink()
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def portrait_picture(tmp_path_factory):
    """Path of a PNG photo, 512 x 512, with one face."""
    path = tmp_path_factory.mktemp("portrait") / "astronaut.png"
    write_picture(path, astronaut())
    return path


@pytest.fixture(scope="session")
def prepared_dataset(talking_head_clips, tmp_path_factory):
    """Path of the data set made from `talking_head_clips`, frames of 64 x 64."""
    from input_pipeline.prepare import prepare

    out = tmp_path_factory.mktemp("dataset")
    prepare.prepare(
        talking_head_clips, out, size=64, labels=talking_head_clips / "labels.csv", progress=False
    )
    return out


@pytest.fixture(scope="session")
def damage():
    """A function of (data set, records): makes garbage of these records of its one shard."""

    def make_garbage(path, places):
        source = shards.Dataset(path)
        encoded = [b"garbage" if i in places else source[i] for i in range(len(source))]
        writer = ArrayRecordWriter(str(path / shards.name("train", 0, 1)), shards.OPTIONS)
        for record in encoded:
            writer.write(record)
        writer.close()

    return make_garbage


# Cases whose true answer is known: one head in other colours, its hair dyed.
CASE_SIDE, CASE_FRAMES = 128, 6
RED, BLUE = np.float32([200, 40, 60]), np.float32([50, 70, 200])


def _dyed(image, mask, colour):
    """The hair keeps its light and shade, its colour changes."""
    light = image.astype(np.float32).mean(-1, keepdims=True) / 255
    dyed = (0.25 + 0.9 * light) * colour
    return np.where(mask[..., None], dyed, image).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def landmarker():
    return FaceLandmarker()


@pytest.fixture(scope="session")
def case_folder(tmp_path_factory, talking_head, landmarker):
    """Path of a counterfactual case folder: two cases of hair, one of interpolated colour."""
    root = tmp_path_factory.mktemp("cases") / "counterfactual"
    segmenter = segmenters.load("heuristic")

    def clip(colours, phase, mirrored=False):
        frames = talking_head(colours, mirrored, phase, 3 * CASE_FRAMES)
        return np.stack(
            [cv2.resize(f, (CASE_SIDE, CASE_SIDE), interpolation=cv2.INTER_AREA) for f in frames][
                ::3
            ]
        )

    def hair(frames):
        points = landmarker.track(frames).keypoints
        return segmenter(segmenters.Pictures(np.array(frames), points), frozenset(["hair"]))["hair"]

    plain, cool = np.eye(3), np.diag([0.7, 0.85, 1.0])
    written = []
    for number, (colours, dyes) in enumerate(
        [(plain, [RED]), (cool, [BLUE]), (plain, [RED, BLUE])]
    ):
        truth, driver = clip(colours, number), clip(cool if number != 1 else plain, number)
        shown = hair(truth)
        attribute_source = clip(np.diag([0.9, 0.8, 0.7]), 2, mirrored=True)[:1]
        giver_hair = hair(attribute_source)[0]
        weights = [1.0] if len(dyes) == 1 else [0.25, 0.75]
        dye = sum(weight * colour for weight, colour in zip(weights, dyes))
        answer = np.stack([_dyed(f, m, dye) for f, m in zip(truth, shown)])
        people = {"portrait": "a", "attributes": ["b"] * len(dyes), "driving": "c"}
        case = cases.Case(
            f"{number:04d}",
            "hair" if len(dyes) == 1 else "interpolation/colour",
            tuple(cases.Attribute("hair", weight) for weight in weights),
            CASE_FRAMES,
            people,
        )
        pictures = cases.Pictures(
            portrait=truth[0],
            portrait_mask=shown[0],
            attributes=np.stack(
                [_dyed(attribute_source[0], giver_hair, colour) for colour in dyes]
            ),
            attribute_masks=np.stack([giver_hair] * len(dyes)),
            driving=driver,
            truth=cases.Truth(answer, {"hair": shown}, landmarker.track(truth).keypoints),
        )
        cases.write_case(root, case, pictures, Fraction(25))
        written.append(case)
    cases.write_index(
        root,
        written,
        protocol="counterfactual",
        version=1,
        size=CASE_SIDE,
        fps=Fraction(25),
        source={},
    )
    return root


@pytest.fixture(scope="session")
def case_set(case_folder):
    return cases.CaseSet.read(case_folder)


def _wider(frames):
    """The same motion by a wider face."""
    matrix = np.float32([[1.18, 0, -0.09 * CASE_SIDE], [0, 1, 0]])
    return np.stack(
        [cv2.warpAffine(f, matrix, (CASE_SIDE, CASE_SIDE), borderMode=1) for f in frames]
    )


@pytest.fixture(scope="session")
def reenact_folder(tmp_path_factory, talking_head, landmarker):
    """Path of a folder of two reenactment cases; the driver is the same head, but wider."""
    root, written = tmp_path_factory.mktemp("reenact") / "reenact", []
    for number, colours in enumerate((PEOPLE["plain"], PEOPLE["warm"])):
        film = list(talking_head(colours, phase=number, count=3 * CASE_FRAMES))[::3]
        film = [cv2.resize(f, (CASE_SIDE, CASE_SIDE), interpolation=cv2.INTER_AREA) for f in film]
        keypoints = landmarker.track(film).keypoints
        people = {"portrait": "a", "attributes": [], "driving": "c"}
        case = cases.Case(f"{number:04d}", "reenact", (), CASE_FRAMES, people)
        pictures = cases.Pictures(
            portrait=film[0],
            portrait_mask=np.zeros((CASE_SIDE, CASE_SIDE), bool),
            attributes=np.zeros((0, CASE_SIDE, CASE_SIDE, 3), np.uint8),
            attribute_masks=np.zeros((0, CASE_SIDE, CASE_SIDE), bool),
            driving=_wider(film),
            truth=cases.Truth(np.stack(film), {}, keypoints),
        )
        cases.write_case(root, case, pictures, Fraction(25))
        written.append(case)
    cases.write_index(
        root, written, protocol="reenact", version=1, size=CASE_SIDE, fps=Fraction(25), source={}
    )
    return root
