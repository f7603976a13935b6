"""What atomic steps write, and what the database itself says about settled promises that were changed."""

from typing import ClassVar

from django.db import models


class Entry(models.Model):
    """One write of an atomic step. Nothing keeps a step from having two: that is what is to be found out."""

    promise = models.CharField(max_length=1000)
    step = models.CharField(max_length=100)
    amount = models.IntegerField()

    objects: ClassVar[models.Manager["Entry"]] = models.Manager()

    class Meta:
        app_label = "chaos"

    def __str__(self) -> str:
        return f"{self.promise} {self.step}: {self.amount}"


class Changed(models.Model):
    """A change of a promise that had settled, or its deletion; written by a trigger."""

    promise = models.CharField(max_length=1000)
    what = models.TextField()
    at = models.DateTimeField()

    class Meta:
        app_label = "chaos"

    def __str__(self) -> str:
        return f"{self.promise}: {self.what}"
