"""Tensors of all kinds of files; and files that are cut, empty, or hide a program."""

import os
import pickle
import zipfile
from collections import Counter

import ml_dtypes
import numpy as np
import pytest
from flax import serialization
from safetensors.numpy import save_file

from durian_jax.convert.sources.files import open_weights
from input_pipeline.errors import InputError
from tests.parity import folders

NUMBERS = np.arange(12, dtype=np.float32).reshape(3, 4)


def _read(path):
    return {name: stored.read() for name, stored in open_weights(path).items()}


def test_a_file_that_torch_wrote():
    found = open_weights(folders.FIXTURES / "torch.pth")
    for name, wanted in {
        "plain": NUMBERS, "turned": NUMBERS.T, "part": NUMBERS[1:, 2:], "parameter": NUMBERS,
        "half": NUMBERS.astype(np.float16), "bfloat": NUMBERS.astype(ml_dtypes.bfloat16),
        "count": np.array(7),
    }.items():  # fmt: skip
        assert (found[name].shape, found[name].dtype) == (wanted.shape, str(wanted.dtype))
        np.testing.assert_array_equal(found[name].read(), wanted)
        assert found[name].key == name
    assert "epoch" not in found


def test_our_torch_files_read_like_torchs_own(tmp_path):
    state = {"a": NUMBERS, "b": NUMBERS.astype(ml_dtypes.bfloat16), "c": np.array([3])}
    found = _read(folders.write_torch(tmp_path / "a.pth", {"state_dict": state}))
    assert found.keys() == state.keys()
    for name in state:
        np.testing.assert_array_equal(found[name], state[name])


def test_safetensors_and_its_index(tmp_path):
    save_file({"a": NUMBERS}, tmp_path / "one.safetensors")
    save_file({"b": NUMBERS.astype(ml_dtypes.bfloat16)}, tmp_path / "two.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}')
    found = open_weights(index)
    assert (found["b"].dtype, found["b"].shape) == ("bfloat16", (3, 4))
    np.testing.assert_array_equal(found["a"].read(), NUMBERS)
    np.testing.assert_array_equal(found["b"].read(), NUMBERS)


@pytest.mark.parametrize(
    "text",
    ['{"metadata": {"total_size": 1}}', '{"weight_map": {}}', '{"weight_map": []}',
     '{"weight_map": null}'],
)  # fmt: skip
def test_an_index_without_a_map_is_damaged(text, tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(InputError, match="the index is damaged, it has no weight_map"):
        open_weights(index)


def test_an_index_that_is_cut_short_is_said_to_be_no_json(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"metadata": {"total_si')
    with pytest.raises(InputError, match=r"not readable as JSON .*download it again"):
        open_weights(index)


def test_an_index_of_torch_files_and_what_it_may_lack(tmp_path):
    folders.write_torch(tmp_path / "one.bin", {"a": NUMBERS})
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"a": "one.bin", "b": "two.bin"}}')
    with pytest.raises(InputError, match=r"its part two\.bin is not there"):
        open_weights(index)
    folders.write_torch(tmp_path / "two.bin", {"c": NUMBERS})
    with pytest.raises(InputError, match=r"1 of its tensors are in none of its parts \(b\)"):
        open_weights(index)
    folders.write_torch(tmp_path / "two.bin", {"b": NUMBERS})
    assert open_weights(index).keys() == {"a", "b"}


def test_the_content_counts_and_not_the_name(tmp_path):
    save_file({"a.b": NUMBERS}, tmp_path / "model.bin")
    folders.write_torch(tmp_path / "blob", {"a.b": NUMBERS})
    folders.write_torch(tmp_path / "torch.safetensors", {"a.b": NUMBERS})
    for name in ("model.bin", "blob", "torch.safetensors"):
        np.testing.assert_array_equal(_read(tmp_path / name)["a.b"], NUMBERS)


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin", "a.pth", "a.ckpt", "a.msgpack"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "git lfs pull"),
        (b"<!doctype html><html><body>Access is restricted</body></html>" * 20, "a web page"),
        (b"\n<HTML lang=en>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "an XML document"),
        (b"\x1f\x8b\x08\0\0", "compressed by gzip"),
        (b"", "again"),
    ],
)
def test_what_lies_in_place_of_weights_is_named(name, content, what, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: .*{what}"):
        open_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin", "a.ckpt"])
def test_an_answer_in_plain_text_is_quoted(name, tmp_path):
    (tmp_path / name).write_text("Invalid username or password.")
    with pytest.raises(InputError, match=r"text \('Invalid username or password\.'\)"):
        open_weights(tmp_path / name)


def test_a_pickle_in_plain_text_is_not_taken_for_an_answer(tmp_path):
    for content in ({"a": 1}, Counter(a=1)):
        (tmp_path / "a.pth").write_bytes(pickle.dumps(content, protocol=0))
        with pytest.raises(InputError, match="bare pickles, which are not executed"):
            open_weights(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "key",
    ["unet.down_blocks.0.to_q.lora_A.weight", "lora_unet_down_blocks_0_to_q.lora_down.weight",
     "mid_block.attn1.processor.to_q_lora.up.weight", "lora_te_text.hada_w1_a"],
)  # fmt: skip
def test_a_lora_is_named(key, tmp_path):
    save_file({key: NUMBERS}, tmp_path / "style.safetensors")
    with pytest.raises(InputError, match=r"style.safetensors: a LoRA \(.*merge it"):
        open_weights(tmp_path / "style.safetensors")


def test_files_without_tensors_folders_and_broken_links(tmp_path):
    save_file({}, tmp_path / "none.safetensors")
    (tmp_path / "gone.bin").symlink_to(tmp_path / "blob")
    for name, message in (
        ("none.safetensors", "holds no tensors"),
        ("", "a folder: give a file in it, gone.bin or none.safetensors"),
        ("gone.bin", "a link to a file that is gone"),
    ):
        with pytest.raises(InputError, match=message):
            open_weights(tmp_path / name)


def test_weights_one_level_down_in_a_torch_file(tmp_path):
    path = folders.write_torch(tmp_path / "a.pth", {"net": {"a": NUMBERS}, "epoch": 3})
    assert open_weights(path).keys() == {"a"}
    folders.write_torch(path, {"net": {"a": NUMBERS}, "ema": {"a": NUMBERS}})
    with pytest.raises(InputError, match=r"holds 2 sets of weights \(net, ema\): save the one"):
        open_weights(path)


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        (["module.conv_in.weight", "module.mid_block.a.b"], ["conv_in.weight", "mid_block.a.b"]),
        (["module.betas", "module.model.out.weight"], ["betas", "model.out.weight"]),
        (["net.betas", "net.model.out.weight"], ["net.betas", "net.model.out.weight"]),
        (["down_blocks.0.a.b", "down_blocks.1.a.b"], ["down_blocks.0.a.b", "down_blocks.1.a.b"]),
        (["clip.vision_model.a.b"], ["vision_model.a.b"]),
        (["conv_in._orig_mod.weight"], ["conv_in.weight"]),
        (["model.a.b", "conv_in.weight"], ["model.a.b", "conv_in.weight"]),
        (["norm.weight", "norm.bias"], ["norm.weight", "norm.bias"]),
    ],
)
def test_what_all_names_share_is_a_prefix_unless_a_network_begins_so(keys, wanted, tmp_path):
    save_file(dict.fromkeys(keys, NUMBERS), tmp_path / "a.safetensors")
    found = open_weights(tmp_path / "a.safetensors")
    assert sorted(found) == sorted(wanted)
    assert sorted(stored.key for stored in found.values()) == sorted(keys)


def test_flax_msgpack(tmp_path):
    tree = {
        "down_blocks_0": {"kernel": NUMBERS, "bias": np.arange(400, dtype=np.float16)},
        **{f"level_{i}": {"scale": np.full(20_000, i, np.float32)} for i in range(20)},
        "n" * 40: {"kernel": np.ones((2, 3, 4, 5), np.float32)},
    }
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(serialization.to_bytes(tree))
    found = open_weights(path)
    assert len(found) == 23
    assert found["down_blocks_0/bias"].dtype == "float16"
    assert found["down_blocks_0/kernel"].layout == "linen"
    np.testing.assert_array_equal(found["down_blocks_0/kernel"].read(), NUMBERS)
    np.testing.assert_array_equal(found["level_19/scale"].read(), np.full(20_000, 19))
    assert found["n" * 40 + "/kernel"].shape == (2, 3, 4, 5)


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("bare", [False, True])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(bare, tmp_path):
    path, mark = tmp_path / "evil.pth", tmp_path / "was_run"
    code = pickle.dumps({"conv_in.weight": _Bomb(mark)})
    if bare:
        path.write_bytes(code)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", code)
    with pytest.raises(InputError, match=r"evil.pth: .*not executed"):
        open_weights(path)
    assert not mark.exists()
    # The same bytes do run where nobody looks: the test can fail.
    pickle.loads(code)
    assert mark.exists()


@pytest.mark.parametrize(
    "module,name",
    [("builtins", "eval"), ("torch", "load"), ("torch.nn.modules.linear", "Linear"),
     ("torch._utils", "_rebuild_tensor_v3"), ("collections", "Counter"), ("torch", "os.system")],
)  # fmt: skip
def test_only_tensors_and_dicts_may_be_rebuilt(module, name, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("archive/data.pkl", f"c{module}\n{name}\n.".encode())
    with pytest.raises(InputError, match=f"its pickle calls {module}.{name}"):
        open_weights(tmp_path / "a.pth")


def test_a_tensor_beyond_its_storage_is_damage(tmp_path):
    class Longer(np.ndarray):
        pass

    path = folders.write_torch(tmp_path / "a.pth", {"a": NUMBERS})
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    # Both sides of the (3, 4) become 4: sixteen numbers over a storage of twelve.
    content["archive/data.pkl"] = content["archive/data.pkl"].replace(
        b"K\x03K\x04\x86", b"K\x04K\x04\x86"
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(InputError, match="beyond its storage"):
        open_weights(path)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "msgpack"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_files_cut_short(kind, share, tmp_path):
    path = tmp_path / f"model.{kind}"
    if kind == "safetensors":
        save_file({"a": NUMBERS, "b": NUMBERS}, path)
    elif kind == "pth":
        folders.write_torch(path, {"a": NUMBERS, "b": NUMBERS})
    else:
        path.write_bytes(serialization.to_bytes({"a": NUMBERS, "b": {"kernel": NUMBERS}}))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=rf"model.{kind}: .* again"):
        open_weights(path)


def test_damage_inside_a_tensor_of_a_torch_file_is_noticed(tmp_path):
    path = folders.write_torch(tmp_path / "a.pth", {"a": NUMBERS})
    data = path.read_bytes()
    where = data.index(NUMBERS.tobytes())
    path.write_bytes(data[:where] + b"\xff" + data[where + 1 :])
    with pytest.raises(InputError, match="damaged"):
        open_weights(path)["a"].read()


@pytest.mark.parametrize(
    "name,content,message",
    [
        ("nothing.pth", None, "no such file"),
        ("model.h5", b"x", "unknown kind of file"),
        ("model.msgpack", b"\x93\x01\x02\x03", "not a Flax checkpoint"),
        ("model.msgpack", b"\x81\xa1a\x01", "a is no array"),
    ],
)
def test_other_files(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_weights(tmp_path / name)


def test_a_torch_file_without_tensors(tmp_path):
    path = folders.write_torch(tmp_path / "a.pth", {"epoch": 3})
    with pytest.raises(InputError, match="no dict of tensors"):
        open_weights(path)
