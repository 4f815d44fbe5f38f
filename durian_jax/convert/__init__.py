"""Other people's weights in, ours out: `durian convert`.

A source module (diffusers, diffusers_flax, ldm, animatediff, moore, x_portrait, prompt, arcface,
durian) turns a folder or file into a `Source`: what its config says of the model, and its tensors
by the keys of diffusers.
`importer` joins sources, fits every tensor to one parameter and writes a folder of weights.
`exporter` goes the other way. `names` has the one table between torch keys and parameter paths.
"""
