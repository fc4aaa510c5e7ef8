"""Where the entry point of versions packaged before the room `serving` looks for `Package`.

Such a version carries its own code, but where this package is already imported, as in `biasline predict`, its entry
point meets this one. Nothing else may import this module.
"""

from biasline.serving.package import Package

__all__ = ["Package"]
