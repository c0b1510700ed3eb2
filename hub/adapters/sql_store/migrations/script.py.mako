"""${message}.

Revision ${up_revision}, after ${down_revision | comma,n}. A schema serves programs of its version and of the one before:
add first, remove one version later. Set the integer `schema` in `settings` to the new version at the end.
"""

import sqlalchemy as sa
import sqlmodel  # noqa: F401  (generated columns may name its types)
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
