"""What a promise is: its record, its ids, its values, its errors. Standard library only."""
