"""Networks only: no files, no flags, no loops.

Shape letters, the one legend of the project:

    B clips            F frames of a clip      N attribute references
    H W pixels         h w latent grid         L = h * w tokens
    C channels         c latent channels       K facial keypoints
    S sites: the self-attention layers, in the order down, middle, up
    J token banks of all references joined on the token axis: J = (1 + N) * L
    I alternative banks to interpolate between (Durian Eq. 14), usually one
    M context tokens   D head size             heads attention heads
    b = B * F          E time embedding        d size of a context token

Arrays are channels-last. Spatial layers see frames folded into the batch: [B * F, h, w, C].
"""
