"""What a user sees of bad input: one line on stderr, exit code 2, and no output."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from durian_jax.cli import arguments
from durian_jax.cli.main import main


def _fails(arguments, capsys) -> str:
    """The one line that the command leaves on stderr."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as exit:
        code = exit.code
    error = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("durian")]
    assert len(lines) == 1 and error.endswith(lines[0] + "\n")
    return lines[0]


@pytest.fixture
def animate(tmp_path, portrait_picture, talking_head_clips, fake_run):
    """A function from changed options to the arguments of `durian animate`."""

    def arguments(**changes):
        options = {
            "portrait": portrait_picture,
            "attribute": f"{portrait_picture}:hair",
            "driving": talking_head_clips / "cool.mp4",
            "checkpoint": fake_run,
            "out": tmp_path / "out" / "video.mp4",
        } | changes
        return ["animate", *(f"--{name}={value}" for name, value in options.items())]

    return arguments


@pytest.fixture(scope="session")
def fake_run(tmp_path_factory):
    """A run whose untrained model is never asked to sample: inputs are checked before."""
    import jax

    from configs import tiny
    from durian_jax.distributed import sharding
    from durian_jax.systems.system import build, init_params
    from durian_jax.training import checkpoint
    from durian_jax.training.state import init_state, make_optimizer

    config = tiny.get_config("stage1")
    system = build(config.to_dict())
    shapes = jax.eval_shape(lambda: init_params(system, jax.random.key(0)))
    params = jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape), shapes)
    params = jax.device_put(params, sharding.replicated(sharding.make_mesh()))
    state = init_state(params, ("denoiser/",), (), make_optimizer(config.steps, **config.optimizer))
    workdir = tmp_path_factory.mktemp("run")
    checkpoints = checkpoint.Checkpoints(workdir)
    checkpoints.save(state, {"batch": 0, "corrupt": []}, {"config": config.to_dict()})
    checkpoints.close()
    return workdir


def test_unknown_kind(animate, portrait_picture, capsys):
    line = _fails(animate(attribute=f"{portrait_picture}:wig"), capsys)
    assert "unknown kind 'wig'" in line and "hair, glasses, beard, hat" in line


def test_attribute_without_a_kind(animate, portrait_picture, capsys):
    assert "write IMAGE:KIND" in _fails(animate(attribute=portrait_picture), capsys)


def test_attribute_names_picture_kind_and_mask():
    parse = arguments.parser(["animate"]).parse_args
    rest = ["--portrait=p", "--driving=d", "--checkpoint=c", "--out=o.mp4"]

    def attribute(text):
        return [str(part) for part in parse(["animate", "--attribute", text, *rest]).attributes[0]]

    assert attribute("a.png:hair") == ["a.png", "hair"]
    assert attribute("a.png:hair:mask.png") == ["a.png", "hair", "mask.png"]
    assert attribute("C:\\a.png:hat:C:\\m.png") == ["C:\\a.png", "hat", "C:\\m.png"]


@pytest.mark.parametrize(
    ("name", "file"),
    [("portrait", "nobody.png"), ("driving", "nobody.mp4"), ("driving", "nobody.npz")],
)
def test_missing_file(animate, tmp_path, capsys, name, file):
    line = _fails(animate(**{name: tmp_path / file}), capsys)
    assert f"{file}: no such file" in line


def test_a_photo_drives_a_picture(animate, portrait_picture, capsys):
    line = _fails(animate(driving=portrait_picture), capsys)
    assert "video.mp4: a photo drives a picture: name it *.png, or give frames" in line


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("motion", "mirrored", "unknown: choose from relative, absolute"),
        ("smooth", "-1", "smooth -1: must be 0 (off) to 100"),
        ("frames", "5", "--frames 5 goes with a photo"),
        ("save-motion", "motion.pkl", "motion.pkl: ends in '.pkl'; name the output *.npz"),
    ],
)
def test_options_of_motion(animate, capsys, option, value, reason):
    assert reason in _fails(animate(**{option: value}), capsys)


def test_missing_checkpoint(animate, tmp_path, capsys):
    assert "no checkpoint here" in _fails(animate(checkpoint=tmp_path / "nothing"), capsys)


def test_text_renamed_to_video(animate, tmp_path, capsys):
    fake = tmp_path / "clip.mp4"
    fake.write_text("this is no video " * 100)
    assert f"{fake}: not a readable video" in _fails(animate(driving=fake), capsys)


def test_truncated_clip(animate, tmp_path, talking_head_clips, capsys):
    data = (talking_head_clips / "cool.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) // 2])
    line = _fails(animate(driving=cut), capsys)
    assert "frame" in line and "cut.mp4" in line


def test_tiny_picture(animate, tmp_path, capsys):
    small = tmp_path / "small.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(small)
    line = _fails(animate(portrait=small), capsys)
    assert "16x16" in line and "64" in line


def test_picture_without_a_face(animate, tmp_path, capsys):
    empty = tmp_path / "empty.png"
    Image.fromarray(np.full((256, 256, 3), 90, np.uint8)).save(empty)
    assert f"{empty}: no face found" in _fails(animate(portrait=empty), capsys)


def test_output_of_another_kind(animate, tmp_path, capsys):
    line = _fails(animate(out=tmp_path / "video.avi"), capsys)
    assert "name the output *.mp4 or *.mov or *.webm or *.gif" in line


@pytest.mark.parametrize("out", ["", ".", "/", ".."])
def test_an_output_without_a_name(animate, out, capsys):
    assert "ends in ''; name the output *.mp4" in _fails(animate(out=out), capsys)


def test_unwritable_output_is_found_before_the_work(animate, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    line = _fails(animate(out=tmp_path / "file" / "video.mp4", portrait="nobody.png"), capsys)
    assert "cannot be written" in line


def test_failed_animation_leaves_no_output(animate, tmp_path, capsys):
    _fails(animate(portrait="nobody.png"), capsys)
    assert not list((tmp_path / "out").iterdir())


def test_steps_out_of_range(animate, capsys):
    assert "use 1 to 1000" in _fails([*animate(), "--steps=0"], capsys)


@pytest.fixture
def interpolate(animate, portrait_picture):
    """A function from further options to the arguments of `durian interpolate`."""

    def arguments(*more):
        ends = [f"--{name}={portrait_picture}:hair" for name in ("from", "to")]
        kept = [option for option in animate()[1:] if not option.startswith("--attribute")]
        return ["interpolate", *kept, *ends, *more]

    return arguments


@pytest.mark.parametrize(
    ("alphas", "reason"),
    [
        ("2", "alpha 2: use 0 "),
        ("0,-0.1", "alpha -0.1: use 0 "),
        ("nan", "alpha nan: use 0 "),
        ("0,half", "'0,half': write numbers from 0 to 1"),
        ("0,,1", "'0,,1': write numbers from 0 to 1"),
        ("", "'': write numbers from 0 to 1"),
        ("0.5,1,0.5", "alpha 0.5 is there 2 times"),
    ],
)
def test_alphas_that_cannot_be(interpolate, tmp_path, capsys, alphas, reason):
    assert reason in _fails(interpolate(f"--alphas={alphas}"), capsys)
    assert not list(tmp_path.rglob("*.mp4"))


def test_interpolation_goes_in_pairs(interpolate, portrait_picture, capsys):
    line = _fails(interpolate(f"--to={portrait_picture}:glasses"), capsys)
    assert "interpolating from 1 attributes to 2: give as many on either side" in line


def test_what_interpolation_cannot_read_leaves_no_output(interpolate, tmp_path, capsys):
    line = _fails(interpolate("--driving=nobody.mp4"), capsys)
    assert "nobody.mp4: no such file" in line
    assert not list((tmp_path / "out").iterdir())


@pytest.fixture
def batch(tmp_path, fake_run):
    """A function from the lines of a table to the arguments of `durian batch`."""

    def arguments(*lines):
        (tmp_path / "jobs.csv").write_text("\n".join(lines))
        out = tmp_path / "videos"
        return ["batch", tmp_path / "jobs.csv", f"--out={out}", f"--checkpoint={fake_run}"]

    return arguments


def test_a_table_without_its_columns_writes_nothing(batch, tmp_path, capsys):
    line = _fails(batch("portrait,driving", "a.png,b.mp4"), capsys)
    assert "jobs.csv: no column 'attributes'" in line and not (tmp_path / "videos").exists()


def test_rows_that_fail_are_listed(batch, tmp_path, capsys):
    line = _fails(
        batch("portrait,attributes,driving,seed", "a.png,b.png:hair,c.mp4,x", "a.png,b.png:hair,d"),
        capsys,
    )
    report = tmp_path / "videos" / "report.csv"
    assert f"2 of 2 rows failed: {report} lists them: job-0001 (line 2: seed 'x': write a " in line
    assert f"job-0002 ({tmp_path / 'a.png'}: no such file" in line
    assert [path.name for path in report.parent.iterdir()] == ["report.csv"]
    assert len(report.read_text().splitlines()) == 3


def test_a_batch_with_impossible_options_makes_no_row(batch, tmp_path, portrait_picture, capsys):
    row = f"{portrait_picture},{portrait_picture}:hair,{portrait_picture}"
    line = _fails([*batch("portrait,attributes,driving", row), "--steps=0"], capsys)
    assert "use 1 to 1000" in line
    assert not list((tmp_path / "videos").glob("*.png"))


def test_empty_clip_folder(tmp_path, capsys):
    assert "no clips" in _fails(["prepare", tmp_path, "--out", tmp_path / "out"], capsys)


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--config=configs/nothing.py"], "no such file"),
        (["--config=configs/tiny.py:stage9"], "choose stage1 or stage2"),
        (["--config=configs/tiny.py", "--config.sped=3"], "'sped': choose from"),
        (["--config=configs/tiny.py", "--config.model.heads.x=3"], "'x': see configs/tiny.py"),
        (["--config=configs/tiny.py", "--config.steps=many"], "'many' is no int"),
        (["--config=configs/tiny.py", "--config.model.channels=(1,2"], "'(1,2' is no tuple"),
        (["--config=configs/tiny.py", "--config.data.path=nowhere"], "run durian prepare"),
        (["--config=configs/tiny.py", "--config.batch_size=0"], "batch_size"),
        (["--config=configs/tiny.py", "--config.model.heads=7"], "heads=7"),
    ],
)
def test_bad_training_settings(arguments, message, tmp_path, prepared_dataset, capsys):
    if "--config.data.path=nowhere" not in arguments:
        arguments = [*arguments, f"--config.data.path={prepared_dataset}"]
    line = _fails(["train", f"--workdir={tmp_path / 'run'}", *arguments], capsys)
    assert message in line


def test_unknown_verb_and_option(capsys):
    assert "invalid choice: 'fly'" in _fails(["fly"], capsys)
    assert "--spede" in _fails(["check", "somewhere", "--spede=1"], capsys)


def test_help_needs_no_jax():
    code = "import sys; from durian_jax.cli.main import main; sys.argv = ['durian', '--help']\n"
    code += "try: main()\nexcept SystemExit: pass\nassert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for verb in ("prepare", "check", "synth", "train", "animate", "interpolate", "batch"):
        assert verb in done.stdout


def test_rendering_while_training_refuses_worker_processes(tmp_path, capsys):
    line = _fails(
        ["train", "--config", "configs/tiny.py:stage1", "--workdir", tmp_path / "run",
         "--config.data.path=synth:people=10", "--config.data.workers=2"],
        capsys,
    )  # fmt: skip
    assert "data.workers is 2" in line and "set data.workers to 0" in line
    assert not (tmp_path / "run").exists()


def test_the_sheet_of_augmentation_is_drawn_with_a_configs_ranges(prepared_dataset, tmp_path):
    command = ["check", str(prepared_dataset), "--out", str(tmp_path), "--augmentation"]
    assert main([*command, "--config", "configs/tiny.py:stage2"]) == 0
    assert (tmp_path / "augmentation.png").is_file()


def test_a_config_without_the_sheet_it_is_for(prepared_dataset, capsys):
    command = ["check", str(prepared_dataset), "--config", "configs/tiny.py"]
    assert "goes with --augmentation" in _fails(command, capsys)


@pytest.mark.parametrize(
    ("text", "stage", "message"),
    [
        (None, "", "README.md: has no get_config(): give a file such as configs/tiny.py"),
        ("x = 1\n", "", "mine.py: has no get_config(): give a file such as configs/tiny.py"),
        ("def get_config():\n    return {}\n", ":stage1", "takes no stage: leave out :stage1"),
    ],
)
def test_a_file_that_is_no_config(tmp_path, capsys, text, stage, message):
    file = Path("README.md") if text is None else tmp_path / "mine.py"
    if text:
        file.write_text(text)
    command = ["train", "--config", f"{file}{stage}", "--workdir", str(tmp_path / "run")]
    assert message in _fails(command, capsys)


@pytest.mark.parametrize("option", ["portrait", "driving", "portrait-mask", "attribute", "out"])
def test_links_are_named_as_they_were_given(animate, capsys, option):
    link = "https://example.com/talk.mp4"
    value = f"{link}:hair" if option == "attribute" else link
    assert f"{link}: a link is not read: download it first" in _fails(
        animate(**{option: value}), capsys
    )


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--out=~/x.mp4", "--out={}/x.mp4"),
        ("~", "{}"),
        ("~/a.png:hair:~/m.png", "{0}/a.png:hair:{0}/m.png"),
        ("--masks=parser:~/net.onnx,hair=17", "--masks=parser:{}/net.onnx,hair=17"),
        ("--config.data.path=~/ds", "--config.data.path={}/ds"),
        ("--weights=lpips=~/a.bin", "--weights=lpips={}/a.bin"),
        ("folder~/PROGRA~1/a.png", "folder~/PROGRA~1/a.png"),
    ],
)
def test_a_tilde_that_the_shell_left_is_the_home_folder(home, given, meant):
    assert arguments.at_home(given) == meant.format(home)


def test_a_tilde_in_a_config_is_the_home_folder(home):
    from durian_jax.cli.config_files import load_config

    (home / "mine.py").write_text(
        "from configs import tiny\n\n\ndef get_config(stage='stage1'):\n"
        "    config = tiny.get_config(stage)\n    config.data.path = '~/ds'\n    return config\n"
    )
    assert load_config(str(home / "mine.py"), []).data.path == f"{home}/ds"
    given = load_config("configs/tiny.py", ["--config.init_from=~/run"])
    assert given.init_from == f"{home}/run"


@pytest.mark.parametrize("product", ["out", "save-motion", "debug-masks"])
def test_no_input_is_replaced_by_any_product(
    animate, tmp_path, portrait_picture, talking_head_clips, capsys, product
):
    import shutil

    changes = {
        "out": {"driving": tmp_path / "a.mp4", "out": tmp_path / "a.mp4"},
        "save-motion": {"driving": tmp_path / "a.npz", "save-motion": tmp_path / "a.npz"},
        "debug-masks": {"portrait": tmp_path / "a_masks.png", "out": tmp_path / "a.mp4"},
    }[product]
    for name, source in (("a.mp4", "cool.mp4"), ("a.npz", "cool.mp4"), ("a_masks.png", None)):
        shutil.copy(talking_head_clips / source if source else portrait_picture, tmp_path / name)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    more = ["--debug-masks"] if product == "debug-masks" else []
    assert "would replace the input" in _fails([*animate(**changes), *more], capsys)
    for name, data in before.items():
        assert (tmp_path / name).read_bytes() == data


def test_no_mask_that_an_option_names_is_replaced(animate, tmp_path, portrait_picture, capsys):
    mask = tmp_path / "hair.png"
    mask.write_bytes(b"mask")
    changes = {"driving": portrait_picture, "aligner": f"files:{tmp_path}", "out": mask}
    assert "hair.png: would replace the input" in _fails(animate(**changes), capsys)
    assert mask.read_bytes() == b"mask"


def test_interpolation_replaces_no_input_by_any_of_its_clips(
    interpolate, animate, tmp_path, talking_head_clips, capsys
):
    import shutil

    driving = tmp_path / "a_0.5_grid.mp4"
    shutil.copy(talking_head_clips / "cool.mp4", driving)
    more = [f"--driving={driving}", f"--out={tmp_path / 'a.mp4'}", "--alphas=0,0.5"]
    assert "a_0.5_grid.mp4: would replace the input" in _fails(interpolate(*more), capsys)
    assert driving.read_bytes() == (talking_head_clips / "cool.mp4").read_bytes()
