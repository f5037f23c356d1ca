"""Recipe after recipe on one model: what each stage learns, and what is left of earlier ones.

Nothing here imports torch before a stage is run.
"""

from peftkit.stages.matrix import StageMatrix
from peftkit.stages.running import sequence

__all__ = ["StageMatrix", "sequence"]
