from django.contrib.postgres.operations import (
    AddConstraintNotValid,
    AddIndexConcurrently,
    RemoveIndexConcurrently,
    ValidateConstraint,
)
from django.db import migrations, models

import flows.domain.promise

# Whatever waits for no worker has no time from when on one may claim it, and what is claimed keeps the one it had.
READY_AT = """
UPDATE flows_promise SET ready_at = CASE phase WHEN 'claimed' THEN claimed_at END
WHERE state = 'pending' AND ((phase = 'claimed' AND ready_at IS NULL) OR (phase = '' AND ready_at IS NOT NULL))
"""

# The new row of a claim is to find room beside the old one, in its page: only then the indexes may stay as they are. Of
# many calls that are made at once each page is half full until they are claimed.
LEAVE_ROOM = "ALTER TABLE flows_promise SET (fillfactor = 50)"
LEAVE_NONE = "ALTER TABLE flows_promise RESET (fillfactor)"


class Migration(migrations.Migration):
    # Indexes of a table in use are built beside the writes to it.
    atomic = False

    dependencies = [
        ("flows", "0006_trace"),
    ]

    operations = [
        migrations.RunSQL(LEAVE_ROOM, LEAVE_NONE),
        migrations.RunSQL(READY_AT, migrations.RunSQL.noop),
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
        ValidateConstraint(model_name="promise", name="flows_promise_ready_since"),
        AddIndexConcurrently(
            model_name="promise",
            index=models.Index(
                condition=models.Q(("settled_at__isnull", True)),
                fields=["group", "ready_at"],
                name="flows_promise_open",
            ),
        ),
        RemoveIndexConcurrently(model_name="promise", name="flows_promise_attention"),
        AddIndexConcurrently(
            model_name="promise",
            index=models.Index(
                condition=models.Q(
                    ("state", flows.domain.promise.State["PENDING"]),
                    models.Q(
                        models.Q(("note", ""), _negated=True),
                        ("failures__gte", 3),
                        ("losses__gte", 2),
                        _connector="OR",
                    ),
                ),
                fields=["-created_at"],
                name="flows_promise_attention",
            ),
        ),
        RemoveIndexConcurrently(model_name="promise", name="flows_promise_ready"),
        RemoveIndexConcurrently(model_name="promise", name="flows_promise_claimed"),
        RemoveIndexConcurrently(model_name="promise", name="flows_promise_suspended"),
    ]
