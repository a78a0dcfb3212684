"""Which parts of a float32 graph may be computed in float16 (binary16 of IEEE 754), and how the graph looks then.

| module | what it knows |
|---|---|
| `forms` | from ONNX's schemas: which inputs and outputs of a node turn half, or why none does |
| `peaks` | how large each tensor gets on the samples |
| `scales` | scales of Q/DQ pairs that float16 holds |
| `choice` | which nodes stay in float32, and why |
| `emission` | the graph with half tensors and as few Casts as it takes |
| `emulation` | the same rounding in a float32 graph, which any runtime computes as written |
| `judge` | how far the rounded graph's outputs are from the float32 ones |
| `search` | which nodes to take back where they are too far |

ONNX Runtime's CPU provider computes half nodes in float32 and drops the Casts between them, with all optimizations
off, too: what it gives shows neither rounding nor overflow of activations. Therefore graphs are judged by emulation:
every tensor that would be stored in half is rounded to it, sums inside of an operator are float32, as on GPUs.
"""
