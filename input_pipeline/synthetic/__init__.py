"""Procedural portraits: people, their motion, a renderer, and the truth about every frame.

    people.py     parameters of face, hair, glasses, beard, hat, clothes and scene
    motion.py     how they move: pose and expression, still or over a clip
    distances.py  the vocabulary of signed distances
    head.py       the bare head; accessories.py what it wears; scene.py both, in a pose
    shading.py    colours and light
    render.py     camera and ray marching: picture, masks, depth
    keypoints.py  where the 478 points of the face mesh lie
    dataset.py    people -> records                        (durian synth)
    counterfactuals.py      counterfactual cases: A with what B wears and the motion of C
    reenactments.py         reenactment cases: A as it is, with the motion of C

Lengths are in head units (a face is about 1.7 high and 1.5 wide). Head axes: x to the right of the
picture, y up, z to the camera, origin between the eyes inside the head. The letters x, y, z stand
for float32 arrays of one shape, the coordinates of many points; keeping them apart lets XLA fuse
the whole scene into a few loops (some ten times faster than [..., 3] arrays).
"""
