"""Programs in the dialects that the compilers of CPU, GPU and TPU write."""

import pytest

from durian_jax.planning import hlo

LOOP = """
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (carry: (s32[], f32[64,8])) -> (s32[], f32[64,8]) {
  %carry = (s32[], f32[64,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%carry), index=0
  %all = f32[64,8]{1,0} get-tuple-element(%carry), index=1
  %part = f32[8,8]{1,0} fusion(%all, %i), kind=kLoop, calls=%cut
  %whole = f32[64,8]{1,0} all-gather(%part), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %next = (s32[], f32[64,8]{1,0}) tuple(%i, %whole)
}

%cut (p0: f32[64,8], p1: s32[]) -> f32[8,8] {
  %p0 = f32[64,8]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  ROOT %slice = f32[8,8]{1,0} dynamic-slice(%p0, %p1), dynamic_slice_sizes={8,8}
}

%condition (carry: (s32[], f32[64,8])) -> pred[] {
  %carry = (s32[], f32[64,8]{1,0}) parameter(0)
  ROOT %more = pred[] constant(true)
}

ENTRY %main (x: f32[64,8]) -> f32[64,8] {
  %x = f32[64,8]{1,0:T(8,128)} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[64,8]{1,0}) tuple(%zero, %x)
  %while = (s32[], f32[64,8]{1,0}) while(%start), condition=%condition, body=%body, TRIPS
  %out = f32[64,8]{1,0} get-tuple-element(%while), index=1
  ROOT %reduced = f32[64,8]{1,0} all-reduce(%out), replica_groups=GROUPS, to_apply=%add
}
"""


KNOWN = 'backend_config={"known_trip_count":{"n":"5"}}'


def program(trips=KNOWN, groups="{{0,1},{2,3},{4,5},{6,7}}"):
    return hlo.Program(LOOP.replace("TRIPS", trips).replace("GROUPS", groups))


def test_exchanges_inside_a_loop_count_as_often_as_it_runs():
    gather, reduce = program().collectives(8)
    assert (gather.kind, gather.group, gather.count) == ("all-gather", tuple(range(8)), 5)
    # Each of 8 devices holds 256 bytes, and gets those of the 7 others.
    assert gather.received == 5 * 7 * 256
    # Of 2 devices, each receives half the sums and half the results.
    assert (reduce.kind, reduce.group) == ("all-reduce", (0, 1))
    assert reduce.received == 2 * 2048 / 2


def test_a_loop_of_unknown_length_is_reported():
    assert program().unknown_loops == 0
    unknown = program(trips="metadata={}")
    assert unknown.unknown_loops == 1 and unknown.collectives(8)[0].count == 1


def test_the_tpu_compiler_states_the_length_only_in_the_condition():
    counted = """  %i.1 = s32[]{:T(128)} get-tuple-element(%carry), index=0
  %bound = s32[]{:T(128)} constant(3)
  ROOT %more = pred[]{:T(512)} compare(%i.1, %bound), direction=DIRECTION"""
    text = LOOP.replace("TRIPS", "metadata={}").replace("GROUPS", "{}")
    text = text.replace("  ROOT %more = pred[] constant(true)", counted)
    loop = hlo.Program(text.replace("DIRECTION", "LT"))
    assert loop.unknown_loops == 0 and loop.collectives(8)[0].count == 3
    assert hlo.Program(text.replace("DIRECTION", "NE")).unknown_loops == 1


@pytest.mark.parametrize(
    "groups, expected",
    [
        ("[4,2]<=[8]", (0, 1)),
        ("[2,4]<=[4,2]T(1,0)", (0, 2, 4, 6)),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", (0, 1, 2, 3)),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", (0, 4)),
        ("{}", tuple(range(8))),
    ],
)
def test_groups_are_read_in_every_notation(groups, expected):
    found = {one.kind: one.group for one in program(groups=groups).collectives(8)}
    assert found["all-reduce"] == expected


def test_memory_traffic_takes_slices_for_slices():
    # Five times: cut out 256 bytes (read and write; 4 more for the index), gather 256 to 2048.
    # Once: all-reduce, 2048 in and out. What is in scratch memory, S(1), moves nothing.
    assert program().traffic() == 5 * (2 * 256 + 4 + 256 + 2048) + 2 * 2048
    inside = LOOP.replace("%part = f32[8,8]{1,0} fusion", "%part = f32[8,8]{1,0:T(8)S(1)} fusion")
    inside = inside.replace("TRIPS", "metadata={}").replace("GROUPS", "{}")
    assert hlo.Program(inside).traffic() == 256 + 4 + 2048 + 2 * 2048


TPU = """
ENTRY %main (x: bf16[8,8]) -> bf16[64,8] {
  %x = bf16[8,8]{1,0} parameter(0)
  %one = bf16[64,8]{1,0} fusion(%x), kind=kCustom, calls=%first
  ROOT %two = bf16[64,8]{1,0} fusion(%x), kind=kCustom, calls=%second
}

%first (p: bf16[8,8]) -> bf16[64,8] {
  %p = bf16[8,8]{1,0} parameter(0)
  ROOT %g = bf16[64,8]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=7, ATTRIBUTES
}

%second (q: bf16[8,8]) -> bf16[64,8] {
  %q = bf16[8,8]{1,0} parameter(0)
  ROOT %h = bf16[64,8]{1,0} all-gather(%q), channel_id=7, ATTRIBUTES
}
"""


def test_a_chain_of_fusions_is_one_exchange():
    chained = 'replica_groups=[1,8]<=[8], frontend_attributes={chain_id="3"}'
    (gather,) = hlo.Program(TPU.replace("ATTRIBUTES", chained)).collectives(8)
    assert gather.received == 7 * 128 and gather.count == 1
    (both,) = hlo.Program(TPU.replace("ATTRIBUTES", "replica_groups=[1,8]<=[8]")).collectives(8)
    assert both.received == 2 * 7 * 128 and both.count == 2


def test_permutes_count_what_one_neighbour_sends():
    text = """
ENTRY %main (x: f32[16]) -> f32[16] {
  %x = f32[16]{0} parameter(0)
  %s = (f32[16]{0}, f32[16]{0}) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}
  ROOT %d = f32[16]{0} collective-permute-done(%s)
}
"""
    (permute,) = hlo.Program(text).collectives(2)
    assert (permute.kind, permute.received, permute.count) == ("collective-permute", 64, 1)


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="no entry computation"):
        hlo.Program("HloModule empty")
