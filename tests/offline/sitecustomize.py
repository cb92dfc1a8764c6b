"""Read by every Python process whose PYTHONPATH names this folder."""

import no_network

no_network.block()
