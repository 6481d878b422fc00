"""The schema's history, one file per step, forward only. `mulligan.activities.inventory.migrate` runs it."""
