"""Data, how it is posed to a model, and how answers are scored, one kind of task a file."""

from peftkit.tasks._task import Example, Progress, Task, TaskData

__all__ = ["Example", "Progress", "Task", "TaskData"]
