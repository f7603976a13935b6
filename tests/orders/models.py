from django.db import models


class Payment(models.Model):
    """One movement of money: charged, or given back if negative. Nothing keeps an order from having two."""

    order = models.CharField(max_length=100)
    amount = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.order}: {self.amount}"


def pay(order: str, amount: int) -> None:
    """Move money."""
    Payment.objects.create(order=order, amount=amount)
