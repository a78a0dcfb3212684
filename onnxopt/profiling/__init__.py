"""Where a model's time goes: kernels timed by the runtime, mapped to the layers that its author knows."""

from onnxopt.profiling.profile import LayerTime, Profile, profile_model

__all__ = ["LayerTime", "Profile", "profile_model"]
