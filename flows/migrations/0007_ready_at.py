from django.contrib.postgres.operations import AddConstraintNotValid, ValidateConstraint
from django.db import migrations, models

import flows.domain.promise

# Whatever waits for no worker has no time from when on one may claim it, and what is claimed keeps the one it had.
READY_AT = """
UPDATE flows_promise SET ready_at = CASE phase WHEN 'claimed' THEN claimed_at END
WHERE state = 'pending' AND ((phase = 'claimed' AND ready_at IS NULL) OR (phase = '' AND ready_at IS NOT NULL))
"""


class Migration(migrations.Migration):
    dependencies = [
        ("flows", "0006_trace"),
    ]

    operations = [
        migrations.RemoveConstraint(model_name="promise", name="flows_promise_ready_when"),
        AddConstraintNotValid(
            model_name="promise",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        (
                            "phase__in",
                            [flows.domain.promise.Phase["READY"], flows.domain.promise.Phase["CLAIMED"]],
                        ),
                        _negated=True,
                    ),
                    ("ready_at__isnull", False),
                    _connector="OR",
                ),
                name="flows_promise_ready_since",
            ),
        ),
        migrations.RunSQL(READY_AT, migrations.RunSQL.noop),
        ValidateConstraint(model_name="promise", name="flows_promise_ready_since"),
    ]
