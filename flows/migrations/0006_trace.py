from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("flows", "0005_deadlines_apart"),
    ]

    operations = [
        migrations.AddField(
            model_name="promise",
            name="trace",
            field=models.TextField(help_text="W3C traceparent: its attempts' spans hang below", null=True),
        ),
    ]
