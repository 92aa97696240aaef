"""Is a rule right? What judges an algorithm of somebody's own; `rb.testing` is this room.

From outside: what is named here. May import the registry, backends, and what is in conformance but proofs and commands.
"""

from ref_bioplaus.conformance.authors.checking import NETWORKS as NETWORKS
from ref_bioplaus.conformance.authors.checking import AlgorithmFails as AlgorithmFails
from ref_bioplaus.conformance.authors.checking import Outcome as Outcome
from ref_bioplaus.conformance.authors.checking import Result as Result
from ref_bioplaus.conformance.authors.checking import check_algorithm as check_algorithm
from ref_bioplaus.conformance.authors.oracle import Given as Given
from ref_bioplaus.registry.rows import DECLARATIONS as DECLARATIONS
