"""emubench: a benchmark suite for learned emulators of chaotic ODEs and PDEs.

The nouns (System, Observation, Task, Emulator, Metric, Score) each have a module of their own; imports go
downwards only, and nothing here imports torch until it is needed.
"""

__version__ = "0.1.0"
