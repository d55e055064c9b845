"""Container images: named in the spec, pinned by the lock, carried by a layer, loaded on the node.

``reference`` reads names, ``manifest`` says what an image is made of, ``registry`` and ``archive`` are the two
places that it comes from. :mod:`builder.layers.images` makes the layer.
"""
