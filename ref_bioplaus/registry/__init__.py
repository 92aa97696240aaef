"""Every algorithm and modification by name, and the tables made of them.

From outside: what is named here; `names` says what any name stands for, `catalogue` and `readme` make the tables,
`shapes` says what a rule keeps and multiplies. May import the library, showing and machine.
"""

from .names import row as row
from .rows import MODIFICATIONS as MODIFICATIONS
from .rows import ROWS as ROWS
from .rows import Row as Row
from .rows import feedback_weights as feedback_weights
from .rows import task_loss as task_loss
