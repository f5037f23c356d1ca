"""From an adapter beside a backbone to a backbone that has learned: merged, and proven equal.

A merge reads the update that an adapter makes to the weights W of a layer, adds it in float32 and
rounds once, to the number format asked for:

    LoRA       W + s B A                  s = alpha / r, or alpha / sqrt(r)
    DoRA       m (W + s B A) / |W + s B A|   row by row
    IA3        l W, l b; or W l           where the input is scaled
    BitFit     b + delta
    others     the trained layer itself   (normalisation, last layers, heads)

What is under the update, where the adapter was trained on packed weights Q(W), is a choice: W as it
was (`original`), what Q(W) stands for (`dequantized`: what the adapter was trained against), or the
original sum packed again (`requantized`: Q(W + s B A); to pack what Q(W) stands for would lose most
of the update, which is smaller than the steps between the values that four bits can hold).
"""

from peftkit.merging.folding import fold

__all__ = ["fold"]
