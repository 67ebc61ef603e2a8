"""3D shapes: from a file of any accepted format to points."""

from ibllm_tools.media.shapes.clouds import read_points

__all__ = ["read_points"]
