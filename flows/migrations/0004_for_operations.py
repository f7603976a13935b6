from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    # Indexes of a table in use are built beside the writes to it.
    atomic = False

    dependencies = [
        ("flows", "0003_for_the_admin"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="attempt",
            index=models.Index(
                condition=Q(("outcome__in", ["lost", "fenced"])),
                fields=["outcome", "ended_at"],
                name="flows_attempt_broken",
            ),
        ),
        AddIndexConcurrently(
            model_name="promise",
            index=models.Index(
                condition=Q(("kind__in", ["root", "detached"]), Q(("state", "pending"), _negated=True)),
                fields=["state", "settled_at"],
                name="flows_promise_settled",
            ),
        ),
    ]
