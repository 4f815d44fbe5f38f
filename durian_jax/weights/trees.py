"""Trees of parameters: put together, picked from."""

from flax.traverse_util import flatten_dict, unflatten_dict


def merge(*trees: dict) -> dict:
    """One tree with the leaves of all; of leaves at the same path the last tree's is taken."""
    leaves = {}
    for tree in trees:
        leaves.update(flatten_dict(tree))
    return unflatten_dict(leaves)


def take(params: dict, like: dict) -> dict:
    """The leaves of `params` at the paths of `like`."""
    leaves = flatten_dict(params)
    return unflatten_dict({path: leaves[path] for path in flatten_dict(like)})
