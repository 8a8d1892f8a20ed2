"""The table of attacks. Another one is a row of the module whose room it is aimed at."""

from __future__ import annotations

from tests.adversarial.attack import Attack
from tests.adversarial.attacks.bodies import BODIES
from tests.adversarial.attacks.connections import CONNECTIONS
from tests.adversarial.attacks.engine import ENGINE
from tests.adversarial.attacks.grammars import GRAMMARS
from tests.adversarial.attacks.messages import ANTHROPIC
from tests.adversarial.attacks.texts import TEXTS
from tests.adversarial.attacks.workflows import WORKFLOWS

ATTACKS: tuple[Attack, ...] = (*BODIES, *GRAMMARS, *ANTHROPIC, *TEXTS, *ENGINE, *CONNECTIONS, *WORKFLOWS)
