"""`make chaos`: flows of all shapes on real processes, under a seeded nemesis. No part of the product."""
