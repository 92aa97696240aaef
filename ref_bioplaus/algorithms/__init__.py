"""One file per algorithm; each opens with its equations and the paper they come from."""

from ..calling import checked_makers
from .backprop import backprop as backprop
from .dense_feedback_alignment import dense_feedback_alignment as dense_feedback_alignment
from .direct_feedback_alignment import direct_feedback_alignment as direct_feedback_alignment
from .feedback_alignment import feedback_alignment as feedback_alignment
from .kolen_pollack import kolen_pollack as kolen_pollack
from .sign_symmetry import batch_random as batch_random
from .sign_symmetry import fan_out_scale as fan_out_scale
from .sign_symmetry import initial_magnitude as initial_magnitude
from .sign_symmetry import sign_feedback as sign_feedback
from .sign_symmetry import sign_symmetry as sign_symmetry
from .sign_symmetry import strict_norm as strict_norm
from .sign_symmetry import uniform as uniform
from .target_propagation import alternating as alternating
from .target_propagation import ao_sdtp as ao_sdtp
from .target_propagation import dtp as dtp
from .target_propagation import sdtp as sdtp
from .target_propagation import tp as tp
from .weight_mirror import weight_mirror as weight_mirror

globals().update(checked_makers(globals()))
