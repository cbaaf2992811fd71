"""Generating pictures: the base that is trained on the world, and one mechanism for each way to steer it."""

from ipse.diffusion.base import Base, Generated, load_base

__all__ = ["Base", "Generated", "load_base"]
