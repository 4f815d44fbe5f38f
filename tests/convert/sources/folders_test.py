"""Which file of a model folder is taken: plain ones, variants, shards, in either format."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from durian_jax.convert.sources.folders import open_folder
from input_pipeline.errors import InputError
from tests.parity import folders


def _save(path, **tensors):
    arrays = {f"{name}.weight": np.full(2, value, np.float32) for name, value in tensors.items()}
    if path.suffix == ".bin":
        folders.write_torch(path, arrays)
    else:
        save_file(arrays, path)


def _read(folder):
    found = open_folder(folder)
    return {name.removesuffix(".weight"): float(x.read()[0]) for name, x in found.items()}


@pytest.mark.parametrize("stem", ["diffusion_pytorch_model", "model", "pytorch_model"])
@pytest.mark.parametrize("variant", ["fp16", "bf16", "non_ema", "anything"])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_variant_alone_is_taken_with_a_note(stem, variant, kind, tmp_path, capsys):
    _save(tmp_path / f"{stem}.{variant}.{kind}", a=1)
    assert _read(tmp_path) == {"a": 1}
    said = capsys.readouterr().out
    assert said == (
        f"note: {tmp_path}/{stem}.{variant}.{kind}: the variant {variant}; the plain file is not "
        "there\n"
    )


def test_the_plain_file_comes_first_then_safetensors_then_averaged_weights(tmp_path, capsys):
    order = [
        "m.non_ema.bin", "m.non_ema.safetensors", "m.bf16.safetensors", "m.fp16.bin",
        "m.fp16.safetensors", "m.bin", "m.safetensors",
    ]  # fmt: skip
    for number, name in enumerate(order):
        _save(tmp_path / name.replace("m.", "diffusion_pytorch_model."), a=number)
        assert _read(tmp_path) == {"a": number}
    said = capsys.readouterr().out.splitlines()
    assert "the variant fp16, not bf16, non_ema; the plain file" in said[-1] and len(said) == 5


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("before,after", [("", ""), (".fp16", ""), ("", ".fp16")])
def test_shards_with_and_without_their_index(kind, before, after, tmp_path):
    names = [f"model{before}-{i:05d}-of-00002{after}.{kind}" for i in (1, 2)]
    for number, (name, tensor) in enumerate(zip(names, "ab"), 1):
        _save(tmp_path / name, **{tensor: number})
    assert _read(tmp_path) == {"a": 1, "b": 2}
    index = f"model{before}.{kind}.index.json" if before else f"model.{kind}.index{after}.json"
    (tmp_path / index).write_text(
        f'{{"weight_map": {{"a.weight": "{names[0]}", "b.weight": "{names[1]}"}}}}'
    )
    assert _read(tmp_path) == {"a": 1, "b": 2}
    (tmp_path / names[0]).unlink()
    with pytest.raises(InputError, match=f"its part {names[0]} is not there"):
        open_folder(tmp_path)
    (tmp_path / index).unlink()
    with pytest.raises(InputError, match="shard 1 of 2 is not beside it"):
        open_folder(tmp_path)


def test_what_is_there_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"no weights: expected .*, there is nothing"):
        open_folder(tmp_path)
    for name in ("flax_model.msgpack", "tf_model.h5"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"there is flax_model\.msgpack, tf_model\.h5$"):
        open_folder(tmp_path)
