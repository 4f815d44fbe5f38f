"""Convolution whose weight gradient is a matrix product on CPUs, where that is quicker."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

_NHWC = ("NHWC", "HWIO", "NHWC")

# Places of an output from which on products pay on two cores: 0.6 to 1.0 of XLA's time at 32 x 32
# and 64 x 64, 1.1 to 1.2 at 8 x 8 and 16 x 16.
_MANY = 24 * 24


class Conv(nn.Conv):
    """flax's Conv over pictures: the same parameters and results.

    For outputs of 24 x 24 and more its gradient for the kernel is, on CPUs, one matrix product for
    each place of the kernel. XLA writes it as a convolution whose window is the whole picture.

    Inputs are [b, h, w, C]; without dilation and groups.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [b, h, w, C] -> [b, h', w', features]."""
        size, strides = tuple(self.kernel_size), _pair(self.strides)
        kernel = self.param("kernel", self.kernel_init, (*size, x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        x, kernel, bias = (leaf.astype(self.dtype) for leaf in (x, kernel, bias))
        padding = self.padding
        if isinstance(padding, int):
            padding = ((padding, padding),) * 2
        elif isinstance(padding, str):
            padding = jax.lax.padtype_to_pads(x.shape[1:3], size, strides, padding)
        return _convolve(x, kernel, strides, tuple(map(tuple, padding))) + bias


def _pair(value) -> tuple[int, int]:
    return (value or 1,) * 2 if value is None or isinstance(value, int) else tuple(value)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, strides, padding):
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_NHWC)


def _forward(x, kernel, strides, padding):
    return _convolve(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, saved, d_output):
    x, kernel = saved

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_NHWC)

    def by_xla(x, d_output):
        return jax.linear_transpose(lambda kernel: plain(x, kernel), kernel)(d_output)[0]

    (d_x,) = jax.linear_transpose(lambda x: plain(x, kernel), x)(d_output)
    if d_output.shape[1] * d_output.shape[2] < _MANY:
        return d_x, by_xla(x, d_output)
    by_products = functools.partial(_by_products, kernel.shape, strides, padding)
    return d_x, jax.lax.platform_dependent(x, d_output, cpu=by_products, default=by_xla)


def _by_products(shape, strides, padding, x, d_output):
    """The kernel's gradient [kh, kw, C, C'], place by place."""
    _, height, width, features = d_output.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    d_output = d_output.reshape(-1, features)

    def product(row, column):
        rows = slice(row, row + (height - 1) * strides[0] + 1, strides[0])
        columns = slice(column, column + (width - 1) * strides[1] + 1, strides[1])
        return x[:, rows, columns].reshape(-1, shape[2]).T @ d_output

    places = [product(row, column) for row in range(shape[0]) for column in range(shape[1])]
    return jnp.stack(places).reshape(shape)


_convolve.defvjp(_forward, _backward)
