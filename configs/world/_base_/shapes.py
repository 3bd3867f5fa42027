# The harder world: classes are compositions of colour, texture and shape, scenes of 128 x 128.
_scenes = dict(
    size=(128, 128),
    domain='large',
    spec=dict(
        colours=('red', 'yellow', 'green', 'blue'),
        textures=('plain', 'striped', 'dotted'),
        shapes=('disc', 'cross', 'triangle', 'ring'),
    ),
)
