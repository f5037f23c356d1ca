"""The choices of a merge, by name."""

from typing import Literal

Base = Literal["plain", "original", "dequantized", "requantized"]
"""What lies under the update; "plain" is for bases that were never quantised."""
Dtype = Literal["float32", "bfloat16", "float16"]
"""Number format of what is written."""
